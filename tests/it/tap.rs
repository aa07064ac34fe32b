//! `viaduct tap --records`: records as they are, without what they say unless the bridge's configuration shows it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use viaduct_simulator::{Rate, Settings};
use viaduct_testkit::nats::NatsServer;

use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::{Files, Stream};
use crate::kit::vendor::{Vendor, settings};

/// What must not be seen: payload, key, correlation id, a route's header.
const CANARIES: [&str; 6] =
    ["c4n4ry-user", "c4n4ry-text", "4711471147", "c4n4ry-corr", "c4n4ry-mask", "c4n4ry-dead"];

/// A `tap` that prints to this test.
struct Tap {
    child: Child,
    lines: Receiver<String>,
}

impl Tap {
    fn start(site: &Site, arguments: &[&str]) -> Self {
        let mut child = viaduct()
            .arg("tap")
            .args(arguments)
            .arg("-c")
            .arg(site.config())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, lines }
    }

    /// What it prints until it has ended by itself. `feed` is called until then.
    fn finish(mut self, mut feed: impl FnMut()) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut text = String::new();
        loop {
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => text.push_str(&(line + "\n")),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => feed(),
            }
            assert!(Instant::now() < deadline, "{text}");
        }
        assert!(self.child.wait().unwrap().success(), "{text}");
        text
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Place {
    vendor: Vendor,
    stream: Stream,
    folder: tempfile::TempDir,
    emitted: u64,
}

impl Place {
    async fn new() -> Self {
        let quiet = Settings { rate: Rate::PerSecond(0.000_1), total: None, ..settings() };
        let stream = Stream::new(NatsServer::shared().url());
        Self { vendor: Vendor::start(quiet).await, stream, folder: tempfile::tempdir().unwrap(), emitted: 0 }
    }

    fn site(&self, admin: &str) -> Site {
        let files = Files(self.folder.path().to_owned()).sink().replace("\"*\"", "\"engagementCenter.*\"");
        let bus = self.stream.sink("").replace("\"*\"", "\"engagementCenter.*\"");
        let mask = "headers = { x-agent = \"{userId}\" }\n[mask]\nfields = { secret = \"redact\" }\n";
        let site = Site::new(&[self.vendor.source(""), files, bus, mask.to_owned()].concat());
        let text = std::fs::read_to_string(site.config()).unwrap();
        std::fs::write(site.config(), text.replace("[admin]\n", &format!("[admin]\n{admin}\n"))).unwrap();
        site
    }

    /// One event that is routed, and one that is not.
    fn emit(&mut self) {
        self.emitted += 1;
        let control = self.vendor.0.control();
        for (event_type, user) in [("engagementCenter.Idle", "c4n4ry-user"), ("outreach.Call", "c4n4ry-dead")]
        {
            let event = format!(
                r#"{{"kind":"via#engagementCenterEvent","eventId":"{}-{user}-0","correlationId":"c4n4ry-corr","eventType":"{event_type}","publishedTime":"2018-01-30T14:04:20.539Z","schemaVersion":1,"payload":"{{\"userId\":\"{user}\",\"note\":[\"c4n4ry-text\",4711471147,true,null],\"secret\":\"c4n4ry-mask\"}}"}}"#,
                self.emitted
            );
            // The id is no secret.
            let event =
                event.replacen(&format!("-{user}-"), if user == "c4n4ry-user" { "00" } else { "99" }, 1);
            control.emit_raw(&event).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_shown_covered() {
    let mut place = Place::new().await;
    let site = place.site("");
    let mut bridge = site.start();
    bridge.ready().await;
    let shown = |place: &mut Place, arguments: &[&str]| {
        let text = Tap::start(&site, arguments).finish(|| place.emit());
        for canary in CANARIES {
            assert!(!text.contains(canary), "{canary} in\n{text}");
        }
        text
    };
    let json = shown(&mut place, &["--records", "--json", "--type", "engagementCenter.*", "-n", "2"]);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["source"], &first["type"]), (&"main".into(), &"engagementCenter.Idle".into()));
    let number = first["id"].as_str().unwrap().to_owned();

    // The layout is that of the dry run.
    let text = shown(&mut place, &["--records", "--type", "engagementCenter.*", "-n", "1"]);
    let number_here = text.split_whitespace().nth(1).unwrap().to_owned();
    assert_ne!(number, number_here, "records that went by are not kept");
    let name = &place.stream.name;
    assert_eq!(
        text,
        format!(
            r#"main {number_here} engagementCenter.Idle
  -> archive engagementCenter
     {{"kind":"via#engagementCenterEvent","eventId":"{number_here}","correlationId":"•••","eventType":"engagementCenter.Idle","publishedTime":"2018-01-30T14:04:20.539Z","schemaVersion":1,"payload":{{"userId":"•••","note":["•••",0,false,null],"secret":"•••"}}}}
  -> bus {name}.engagementCenter.Idle
     key: •••
     ce-specversion: 1.0
     ce-id: {number_here}
     ce-source: via://acme
     ce-type: com.alvaria.engagementCenter.Idle
     ce-subject: •••
     ce-time: 2018-01-30T14:04:20.539Z
     ce-correlationid: •••
     ce-schemaversion: 1
     content-type: application/json
     x-agent: •••
     Nats-Msg-Id: •••
     Nats-Expected-Stream: {name}
     {{"kind":"via#engagementCenterEvent","eventId":"{number_here}","correlationId":"•••","eventType":"engagementCenter.Idle","publishedTime":"2018-01-30T14:04:20.539Z","schemaVersion":1,"payload":{{"userId":"•••","note":["•••",0,false,null],"secret":"•••"}}}}

"#
        )
    );
    let bus = shown(&mut place, &["--records", "--sink", "bus", "--source", "main", "-n", "2"]);
    assert!(bus.contains("-> bus ") && !bus.contains("-> archive "), "{bus}");
    let dead = shown(&mut place, &["--records", "--type", "outreach.*", "-n", "1"]);
    assert!(
        dead.contains("outreach.Call dead letter: unrouted\n  -> local dead letters dead-letters\n"),
        "{dead}"
    );

    // The filters are for the usual lines, too, of which the last ones are remembered.
    let lines = shown(&mut place, &["--type", "outreach.*", "-n", "2"]);
    assert!(lines.lines().all(|line| line.contains("outreach.Call")), "{lines}");
    let wrong = viaduct().args(["tap", "--type", ""]).arg("-c").arg(site.config()).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64), "{}", String::from_utf8_lossy(&wrong.stderr));
    bridge.terminate().await;
}

/// The configuration of the bridge decides, not whoever reads; masks hold all the same.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_shown_in_clear_where_the_configuration_says_so() {
    let mut place = Place::new().await;
    let site = place.site("records = \"clear\"");
    let mut bridge = site.start();
    bridge.ready().await;
    let text = Tap::start(&site, &["--records", "--sink", "bus", "-n", "1"]).finish(|| place.emit());
    for shown in
        ["key: c4n4ry-user", "x-agent: c4n4ry-user", r#""note":["c4n4ry-text",4711471147,true,null]"#]
    {
        assert!(text.contains(shown), "{shown} in\n{text}");
    }
    assert!(!text.contains("c4n4ry-mask"), "{text}");
    assert!(site.log().contains("`records` in [admin] is \"clear\""), "{}", site.log());
    // It is no less discreet elsewhere.
    let (_, status) = bridge.get("/status").await.unwrap();
    let lines = Tap::start(&site, &["--json", "-n", "1"]).finish(|| {});
    for canary in CANARIES {
        assert!(!status.contains(canary) && !lines.contains(canary), "{canary}");
    }
    bridge.terminate().await;
}
