//! Exactly once against a real broker.

mod commit;
mod conformance;
mod fencing;
mod group;
mod outage;
mod poison;

use std::num::NonZeroU32;
use std::sync::Arc;

use viaduct_sink::{Identity, Member, Owner};

use super::settings;
use crate::{KafkaSettings, KafkaSink};

/// A new instance of the bridge named `bridge`.
fn identity(bridge: &str, sources: &[&str]) -> Identity {
    let member = |source: &&str| Member { source: Arc::from(*source), remember: 20_000 };
    Identity {
        bridge: bridge.to_owned(),
        sink: "lake".to_owned(),
        owner: Owner::random(),
        sources: sources.iter().map(member).collect(),
    }
}

fn exactly_once(bootstrap: &str, bridge: &str, sources: &[&str], shards: u32) -> KafkaSettings {
    let mut settings = settings(bootstrap, &[]);
    settings.exactly_once = Some(identity(bridge, sources));
    settings.shards = NonZeroU32::new(shards).unwrap();
    settings
}

async fn start(settings: KafkaSettings) -> Arc<KafkaSink> {
    Arc::new(KafkaSink::connect(settings).await.unwrap())
}
