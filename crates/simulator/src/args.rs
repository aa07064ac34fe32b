//! The command line of `viaduct simulate`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::duration;
use crate::fault::FaultPlan;
use crate::settings::{CatalogType, EmptyPoll, Rate, Redelivery, Requeue, Settings, SettingsError, Types};

/// Arguments of `viaduct simulate`; checked by turning them into [`Settings`].
#[derive(Clone, clap::Args)]
pub struct SimulateArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8900")]
    pub listen: SocketAddr,
    /// Name of the organization; any other is answered with 404
    #[arg(long, value_name = "NAME", default_value = "acme")]
    pub org: String,
    /// Same seed and settings: same events
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Which unacknowledged events come again: per_session_new_then_pending (as Redis XREADGROUP) or from_head
    #[arg(long, value_name = "MODEL", default_value_t = Redelivery::PerSessionNewThenPending)]
    pub redelivery: Redelivery,
    /// How long an event stays unacknowledged before it comes again (per_session_new_then_pending)
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse)]
    pub redelivery_delay: Duration,
    /// What becomes of the unacknowledged events of a lost session: same_id, new_id or lost
    #[arg(long, value_name = "MODEL", default_value_t = Requeue::SameId)]
    pub requeue: Requeue,
    /// Events per second, 'unlimited', or 'saturated' (prepared ahead and only counted, for measuring a client)
    #[arg(long, value_name = "RATE", default_value_t = Rate::PerSecond(100.0))]
    pub rate: Rate,
    /// Events arise in groups of this many
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub burst: u32,
    /// Events in all; without it there is no end
    #[arg(long, value_name = "COUNT")]
    pub events: Option<u64>,
    /// Interactions that are alive at a time
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub interactions: u32,
    /// Pad payloads to about this size
    #[arg(long, value_name = "BYTES")]
    pub payload_bytes: Option<usize>,
    /// Event types, comma-separated (engagementCenter.Idle,messaging.*), or 'all'
    #[arg(long, value_name = "TYPES", default_value_t = Types::All)]
    pub types: Types,
    /// How long GET /events waits for an event
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration::parse)]
    pub hold: Duration,
    /// Status of a GET /events that waited in vain: 200 (empty list) or 204
    #[arg(long, value_name = "STATUS", default_value_t = EmptyPoll::EmptyList)]
    pub empty_poll: EmptyPoll,
    /// How far away the simulator is: every answer comes this much later
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub round_trip: Duration,
    /// How long an access token is valid
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    pub token_ttl: Duration,
    /// Grant this inactivity delay, whatever is asked for
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub granted_inactivity: Option<Duration>,
    /// The accepted client id; without it, any
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// The accepted client secret; without it, any
    #[arg(long, value_name = "SECRET", env = "VIADUCT_SIMULATE_CLIENT_SECRET", hide_env_values = true)]
    pub client_secret: Option<String>,
    /// The accepted x-api-key; without it, any
    #[arg(long, value_name = "KEY", env = "VIADUCT_SIMULATE_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// A catalog type that subscriptions may not name; may be given more than once
    #[arg(long, value_name = "TYPE")]
    pub disable_catalog_type: Vec<CatalogType>,
    /// Faults, as in 'events:503:5% acknowledge:reset-after:@3,7 *:any:1%'; may be given more than once
    #[arg(long, value_name = "RULES")]
    pub faults: Vec<FaultPlan>,
    /// Keep the text of every event in the journal
    #[arg(long)]
    pub keep_entries: bool,
    /// Keep the order of all deliveries in the journal, repeated ones included
    #[arg(long)]
    pub keep_deliveries: bool,
}

impl fmt::Debug for SimulateArgs {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulateArgs")
            .field("listen", &self.listen)
            .field("org", &self.org)
            .finish_non_exhaustive()
    }
}

impl TryFrom<SimulateArgs> for Settings {
    type Error = SettingsError;

    fn try_from(args: SimulateArgs) -> Result<Self, SettingsError> {
        let catalog_types = [CatalogType::ChangeNotification, CatalogType::EngagementCenterThirdParty];
        let settings = Self {
            listen: args.listen,
            org: args.org,
            seed: args.seed,
            redelivery: args.redelivery,
            redelivery_delay: args.redelivery_delay,
            requeue: args.requeue,
            rate: args.rate,
            burst: args.burst,
            total: args.events,
            interactions: args.interactions,
            payload_bytes: args.payload_bytes,
            types: args.types,
            hold: args.hold,
            empty_poll: args.empty_poll,
            round_trip: args.round_trip,
            token_ttl: args.token_ttl,
            granted_inactivity: args.granted_inactivity,
            client_id: args.client_id,
            client_secret: args.client_secret,
            api_key: args.api_key,
            catalog_types: catalog_types
                .into_iter()
                .filter(|catalog_type| !args.disable_catalog_type.contains(catalog_type))
                .collect(),
            keep_entries: args.keep_entries,
            keep_deliveries: args.keep_deliveries,
            faults: FaultPlan { rules: args.faults.into_iter().flat_map(|plan| plan.rules).collect() },
        };
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn read(arguments: &str) -> Result<Settings, String> {
        let words = std::iter::once("simulate").chain(arguments.split_whitespace());
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        Settings::try_from(command.args).map_err(|error| error.to_string())
    }

    #[test]
    fn without_arguments_only_the_address_differs_from_the_default() {
        Command::command().debug_assert();
        let settings = read("").unwrap();
        assert_eq!(settings.listen.port(), 8900);
        let (default, read) =
            (Settings::default(), Settings { listen: Settings::default().listen, ..settings });
        assert_eq!(format!("{read:?}"), format!("{default:?}"));
    }

    #[test]
    fn every_argument_arrives() {
        let settings = read(
            "--listen 127.0.0.1:0 --org other --seed 9 --redelivery from_head --redelivery-delay 20ms --requeue new_id \
             --rate unlimited --burst 3 --events 10 --interactions 2 --payload-bytes 900 --types messaging.*,outreach.status \
             --hold 2s --empty-poll 204 --round-trip 20ms --token-ttl 5m --granted-inactivity 1500ms --client-id me --client-secret s \
             --api-key k --disable-catalog-type changeNotification --faults events:503:5% --faults *:any:1% --keep-entries",
        )
        .unwrap();
        assert_eq!(
            (settings.org.as_str(), settings.seed, settings.burst, settings.interactions),
            ("other", 9, 3, 2)
        );
        assert_eq!((settings.redelivery, settings.requeue), (Redelivery::FromHead, Requeue::NewId));
        assert_eq!(
            (settings.rate, settings.total, settings.payload_bytes),
            (Rate::Unlimited, Some(10), Some(900))
        );
        assert_eq!(settings.types.to_string(), "messaging.*,outreach.status");
        assert_eq!(settings.redelivery_delay, Duration::from_millis(20));
        assert_eq!((settings.hold, settings.token_ttl), (Duration::from_secs(2), Duration::from_secs(300)));
        assert_eq!(settings.granted_inactivity, Some(Duration::from_millis(1500)));
        assert_eq!(settings.empty_poll, EmptyPoll::NoContent);
        assert_eq!(settings.round_trip, Duration::from_millis(20));
        assert_eq!(settings.catalog_types, [CatalogType::EngagementCenterThirdParty]);
        assert_eq!(settings.faults.to_string(), "events:503:0.05 *:any:0.01");
        assert_eq!(settings.client_id.as_deref(), Some("me"));
        assert_eq!((settings.client_secret.as_deref(), settings.api_key.as_deref()), (Some("s"), Some("k")));
        assert!(settings.keep_entries);
        assert!(!format!("{settings:?}").contains("\"s\""), "secrets are not shown");
    }

    #[test]
    fn mistakes_are_explained() {
        let mistake = |arguments: &str| read(arguments).unwrap_err();
        assert!(
            mistake("--redelivery never").contains("is not one of per_session_new_then_pending, from_head")
        );
        assert!(mistake("--rate fast").contains("neither a number nor 'unlimited'"));
        assert!(mistake("--rate=-1").contains("--rate: must be 0 to 1000000000"));
        assert!(mistake("--hold soon").contains("is not a duration such as 15s"));
        assert!(mistake("--faults events:200:1").contains("unknown fault"));
        assert!(mistake("--types chat.SendText").contains("matches no event type"));
        assert!(mistake("--token-ttl 0s").contains("--token-ttl: must be more than 0"));
    }
}
