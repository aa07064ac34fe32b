//! Lines: ways from a bridge to a shared broker that a test can stall, cut and heal, while its readers go straight.
//!
//! A Kafka client follows the addresses that the broker advertises, so a proxy in front of the usual port would be left at
//! once. The broker of this module therefore has a listener per line, which advertises the line's proxy.

use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, SemaphorePermit};
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::native::free_port;
use viaduct_testkit::nats::NatsServer;
use viaduct_testkit::proxy::Proxy;

use super::case::Broker;

/// How many scenarios may have a line to Kafka at a time.
const LINES: usize = 12;

/// A way to a broker through a proxy of its own.
#[derive(Debug)]
pub(crate) struct Line {
    /// The address for the bridge.
    pub(crate) through: String,
    /// The address for readers.
    pub(crate) direct: String,
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    Kafka {
        number: usize,
        _permit: SemaphorePermit<'static>,
    },
    Nats(Proxy),
    /// A broker of the test's own, without a proxy.
    Straight,
}

impl Line {
    /// To the broker of this kind that everybody shares.
    pub(crate) async fn to(broker: Broker) -> Self {
        match broker {
            Broker::Kafka => Self::kafka().await,
            Broker::Nats => Self::to_nats(NatsServer::shared().url()).await,
        }
    }

    /// To the Kafka broker of all lines. Waits for one that is free.
    async fn kafka() -> Self {
        let exchange = KafkaExchange::shared();
        let permit = exchange.permits.acquire().await.expect("the semaphore is never closed");
        let number = exchange.free().pop().expect("as many lines as permits");
        Self {
            through: format!("127.0.0.1:{}", exchange.proxies[number].port()),
            direct: exchange.broker.bootstrap().to_owned(),
            hold: Hold::Kafka { number, _permit: permit },
        }
    }

    /// To a NATS server of the test's own.
    pub(crate) async fn to_nats(url: &str) -> Self {
        let address = url.trim_start_matches("nats://");
        let target = tokio::net::lookup_host(address).await.expect("a NATS address").next();
        let proxy = Proxy::start(target.expect("an address")).await.expect("a proxy");
        let through = format!("nats://127.0.0.1:{}", proxy.port());
        Self { through, direct: url.to_owned(), hold: Hold::Nats(proxy) }
    }

    /// Straight to a broker of the test's own.
    pub(crate) fn straight(address: &str) -> Self {
        Self { through: address.to_owned(), direct: address.to_owned(), hold: Hold::Straight }
    }

    /// What stalls, cuts and heals it.
    ///
    /// # Panics
    /// On a line without a proxy.
    pub(crate) fn proxy(&self) -> &Proxy {
        match &self.hold {
            Hold::Kafka { number, .. } => &KafkaExchange::shared().proxies[*number],
            Hold::Nats(proxy) => proxy,
            Hold::Straight => panic!("this line has no proxy"),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Hold::Kafka { number, .. } = &self.hold {
            let exchange = KafkaExchange::shared();
            exchange.proxies[*number].cut();
            exchange.proxies[*number].heal();
            exchange.free().push(*number);
        }
    }
}

/// A Kafka broker with a listener per line.
#[derive(Debug)]
struct KafkaExchange {
    broker: KafkaBroker,
    proxies: Vec<Proxy>,
    free: Mutex<Vec<usize>>,
    permits: Semaphore,
    /// The proxies' own, because each test has another.
    _runtime: Runtime,
}

impl KafkaExchange {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<KafkaExchange> = OnceLock::new();
        // On a thread of its own: a test's runtime must not wait for another one.
        SHARED.get_or_init(|| std::thread::spawn(Self::start).join().expect("the Kafka broker starts"))
    }

    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listeners: Vec<u16> = (0..LINES).map(|_| free_port().expect("a free port")).collect();
        let proxies: Vec<Proxy> = listeners
            .iter()
            .map(|port| runtime.block_on(Proxy::start(SocketAddr::from(([127, 0, 0, 1], *port)))))
            .collect::<Result<_, _>>()
            .expect("proxies start");
        let each = |text: &dyn Fn(usize) -> String| (0..LINES).map(text).collect::<String>();
        let listen =
            format!("{{listeners}}{}", each(&|line| format!(",LINE{line}://127.0.0.1:{}", listeners[line])));
        let advertised = format!(
            "{{listeners}}{}",
            each(&|line| format!(",LINE{line}://127.0.0.1:{}", proxies[line].port()))
        );
        let protocols = format!(
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{}",
            each(&|line| format!(",LINE{line}:PLAINTEXT"))
        );
        let broker = KafkaBroker::start_with(&[
            ("listeners", &listen),
            ("advertised.listeners", &advertised),
            ("listener.security.protocol.map", &protocols),
        ]);
        Self {
            broker,
            proxies,
            free: Mutex::new((0..LINES).collect()),
            permits: Semaphore::new(LINES),
            _runtime: runtime,
        }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
