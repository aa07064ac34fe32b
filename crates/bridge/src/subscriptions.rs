//! `viaduct subscriptions`: the declared subscriptions against those of the source's session.
//!
//! Subscriptions belong to a session, and the session is the bridge's: its id is read from the state directory, without
//! locking it, and nothing but the session's subscriptions is touched, so a bridge that runs is not disturbed. The bridge
//! itself applies the declared subscriptions to every new session; these commands show and repeat that.

mod report;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use viaduct_poller::{
    Access, ActualSubscription, CallError, FailureKind, NoObserver, SavedSession, SessionId, SessionStore,
    SourceSettings, SubscriptionChange, VendorClient, plan_subscriptions,
};

use self::report::{Action, Line, Outcome, Report, Session, SourceReport, Spec};
use crate::cli::{SubscriptionsArgs, SubscriptionsCommand};
use crate::config::{self, Api, Config, Source};
use crate::exit::{Exit, Failure};
use crate::source_settings;
use crate::state::{self, StateDir};

/// Lists, plans or applies.
///
/// # Errors
/// 64 for an unknown source, 69 where the vendor does not answer or there is no session to apply to, 77 where it refuses
/// the credentials, 78 for a wrong configuration and where it refuses a declared subscription.
pub(crate) async fn subscriptions(
    command: &SubscriptionsCommand,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let args = command.args();
    let config = config::load(args.config.load_input()?)?.config;
    let sources = chosen(&config, args)?;
    let mut reports = Vec::with_capacity(sources.len());
    let mut failure = None;
    for source in sources {
        let (report, failed) = of_source(command, &config.state_dir, source).await;
        reports.extend(report);
        failure = failure.or(failed);
    }
    let report = Report { sources: reports };
    let text = if args.json { report.json() } else { report.text(command.verb()) };
    out.write_all(text.as_bytes()).map_err(|error| Failure::output("the report", &error))?;
    failure.map_or(Ok(()), Err)
}

fn chosen<'c>(config: &'c Config, args: &SubscriptionsArgs) -> Result<Vec<&'c Source>, Failure> {
    let Some(name) = &args.source else { return Ok(config.sources.iter().collect()) };
    match config.sources.iter().find(|source| source.name == *name) {
        Some(source) => Ok(vec![source]),
        None => {
            let names: Vec<_> = config.sources.iter().map(|source| source.name.as_str()).collect();
            let hint = format!("the sources are {}", names.join(", "));
            Err(Failure::new(Exit::Usage, format!("there is no source {name}"), hint))
        }
    }
}

/// A source's report, as far as it came, and what failed.
async fn of_source(
    command: &SubscriptionsCommand,
    state_dir: &Path,
    source: &Source,
) -> (Option<SourceReport>, Option<Failure>) {
    let vendor = match Vendor::of(source) {
        Ok(vendor) => vendor,
        Err(failure) => return (None, Some(failure)),
    };
    let looked = match command {
        SubscriptionsCommand::Apply(args) if args.trial => vendor.trial().await,
        _ => vendor.look(state_dir).await,
    };
    let (session, standing) = match looked {
        Ok(looked) => looked,
        Err(failure) => return (None, Some(failure)),
    };
    let mut report = vendor.compare(&session, &standing);
    let failure = match command {
        SubscriptionsCommand::List(_) | SubscriptionsCommand::Plan(_) => None,
        SubscriptionsCommand::Apply(_) => vendor.apply(&session, &standing, &mut report).await,
    };
    if let Session::Trial(id) = &session {
        vendor.end_trial(id).await;
    }
    (Some(report), failure)
}

/// One source's side of the vendor.
struct Vendor<'s> {
    source: &'s Source,
    settings: SourceSettings,
    client: VendorClient,
}

type Looked = (Session, Vec<ActualSubscription>);

impl<'s> Vendor<'s> {
    fn of(source: &'s Source) -> Result<Self, Failure> {
        let settings = source_settings::of(source);
        let client = VendorClient::new(settings.clone(), Arc::new(NoObserver)).map_err(|error| {
            Failure::new(
                Exit::Config,
                format!("source {}: {error}", source.name),
                format!("correct [source.{}] in the configuration", source.name),
            )
        })?;
        Ok(Self { source, settings, client })
    }

    async fn access(&self) -> Result<Access, Failure> {
        self.client.token_provider().fetch().await.map_err(|error| self.failure(&error))
    }

    /// The subscriptions of the saved session.
    async fn look(&self, state_dir: &Path) -> Result<Looked, Failure> {
        let Some(saved) = self.saved(state_dir)? else { return Ok((Session::None, Vec::new())) };
        let access = self.access().await?;
        match self.client.list_subscriptions(&access, &saved.session_id).await {
            Ok(standing) => Ok((Session::Live(saved.session_id), standing)),
            Err(error) if error.kind == FailureKind::Expired => {
                self.forget(state_dir, &saved.session_id);
                Ok((Session::Expired(saved.session_id), Vec::new()))
            }
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn saved(&self, state_dir: &Path) -> Result<Option<SavedSession>, Failure> {
        let Source { name, api_url, org_id, api, .. } = self.source;
        let saved = state::saved_session(state_dir, name, api_url.as_str(), org_id).map_err(|error| {
            Failure::new(
                Exit::CantCreate,
                format!("the saved session of source {name} cannot be read: {error}"),
                format!("make {} readable for this user", state_dir.display()),
            )
        })?;
        let api = match api {
            Api::V2 => viaduct_poller::ApiVersion::V2,
            Api::V3 => viaduct_poller::ApiVersion::V3,
        };
        Ok(saved.filter(|saved| saved.api == api))
    }

    /// A dead session id is never used again. Where a bridge runs, it holds the state and finds out by itself.
    fn forget(&self, state_dir: &Path, dead: &SessionId) {
        let Ok(state) = StateDir::open(state_dir) else { return };
        let Source { name, api_url, org_id, .. } = self.source;
        let mut store = state.session_store(name, api_url.as_str(), org_id);
        if let Ok(Some(saved)) = store.load()
            && saved.session_id == *dead
        {
            // Failing to forget it costs the next start one refused call.
            let _ = store.clear();
        }
    }

    /// A session of its own, in which nothing is polled.
    async fn trial(&self) -> Result<Looked, Failure> {
        let access = self.access().await?;
        let granted = self.client.create_session(&access).await.map_err(|error| self.failure(&error))?;
        Ok((Session::Trial(granted.id), Vec::new()))
    }

    async fn end_trial(&self, session: &SessionId) {
        if let Ok(access) = self.access().await {
            // Left over, it ends with its inactivity delay.
            let _ = self.client.delete_session(&access, session).await;
        }
    }

    fn compare(&self, session: &Session, standing: &[ActualSubscription]) -> SourceReport {
        let declared = &self.settings.subscriptions;
        let plan = plan_subscriptions(declared, standing, self.settings.prune);
        let mut lines: Vec<Line> = plan
            .iter()
            .map(|change| {
                let find =
                    |id: &String| standing.iter().find(|one| one.id == *id).map(|one| &one.subscription);
                match change {
                    SubscriptionChange::Create(index) => {
                        Line::of(Action::Create, Some(&declared[*index]), None)
                    }
                    SubscriptionChange::Update(index, id) => {
                        Line::of(Action::Update, Some(&declared[*index]), find(id))
                    }
                    SubscriptionChange::Delete { id, .. } => Line::of(Action::Delete, None, find(id)),
                }
            })
            .collect();
        for one in standing {
            let planned = plan.iter().any(|change| match change {
                SubscriptionChange::Create(_) => false,
                SubscriptionChange::Update(_, id) | SubscriptionChange::Delete { id, .. } => *id == one.id,
            });
            if !planned {
                let wanted =
                    declared.iter().find(|wanted| wanted.description == one.subscription.description);
                let action = if wanted.is_some() { Action::Keep } else { Action::Foreign };
                lines.push(Line::of(action, wanted, Some(&one.subscription)));
            }
        }
        // The vendor's list has no order: what stays stands as it was declared.
        let place = |line: &Line| declared.iter().position(|wanted| wanted.description == line.description);
        lines[plan.len()..].sort_by_key(|line| place(line).unwrap_or(usize::MAX));
        SourceReport { source: self.source.name.clone(), session: session.into(), subscriptions: lines }
    }

    /// Makes the planned changes, one by one; the first lines of the report are those of the plan.
    async fn apply(
        &self,
        session: &Session,
        standing: &[ActualSubscription],
        report: &mut SourceReport,
    ) -> Option<Failure> {
        let Some(id) = session.usable() else { return Some(self.no_session()) };
        let declared = &self.settings.subscriptions;
        let plan = plan_subscriptions(declared, standing, self.settings.prune);
        let access = match self.access().await {
            Ok(access) => access,
            Err(failure) => return Some(failure),
        };
        let mut refused = Vec::new();
        for (change, line) in plan.iter().zip(&mut report.subscriptions) {
            match self.client.change_subscription(&access, id, declared, change).await {
                Ok(()) => line.outcome = Some(Outcome::Applied),
                Err(error) if concerns_the_subscription(&error) => {
                    line.outcome = Some(Outcome::Refused);
                    line.detail = Some(error.detail.clone());
                    refused.push(format!("{:?} ({})", line.description, error.detail));
                }
                Err(error) => return Some(self.failure(&error)),
            }
        }
        (!refused.is_empty()).then(|| {
            Failure::new(
                Exit::Config,
                format!("source {}: the vendor refuses {}", self.source.name, refused.join(", ")),
                "have the catalog type enabled for the organisation by the vendor's customer care, or correct \
                 [[source.*.subscription]]",
            )
        })
    }

    fn no_session(&self) -> Failure {
        Failure::new(
            Exit::Unavailable,
            format!("source {} has no session to apply subscriptions to", self.source.name),
            "`viaduct run` creates one and applies them; `viaduct subscriptions apply --trial` tries them in a session \
             of its own",
        )
    }

    fn failure(&self, error: &CallError) -> Failure {
        let name = &self.source.name;
        let (exit, hint) = match error.retry_after {
            _ if refuses_credentials(error) => (
                Exit::NoPerm,
                format!("check client_id, client_secret, api_key and scope in [source.{name}.auth]"),
            ),
            Some(wait) => (Exit::Unavailable, format!("try again in {} seconds", wait.as_secs().max(1))),
            None => {
                (Exit::Unavailable, format!("check api_url and token_url in [source.{name}], or try again"))
            }
        };
        Failure::new(exit, format!("source {name}: {error}"), hint)
    }
}

/// Whether the vendor says no to who is asking, or that cannot even be said because a secret cannot be read.
pub(crate) fn refuses_credentials(error: &CallError) -> bool {
    matches!(
        error.kind,
        FailureKind::Credentials | FailureKind::Unauthorized | FailureKind::Forbidden | FailureKind::Secret
    )
}

/// A "no" to this subscription, while others may do better.
pub(crate) fn concerns_the_subscription(error: &CallError) -> bool {
    matches!(error.kind, FailureKind::Refused | FailureKind::NotFound | FailureKind::Forbidden)
}

impl Spec {
    fn of(subscription: &viaduct_poller::Subscription) -> Self {
        Self {
            catalog_type: subscription.catalog_type.clone(),
            events: subscription.events.clone(),
            resource_type: subscription.resource_type.clone(),
            resource_ids: subscription.resource_ids.clone(),
        }
    }
}

impl Line {
    fn of(
        action: Action,
        declared: Option<&viaduct_poller::Subscription>,
        actual: Option<&viaduct_poller::Subscription>,
    ) -> Self {
        let description = declared.or(actual).map(|one| one.description.clone()).unwrap_or_default();
        Self {
            action,
            description,
            declared: declared.map(Spec::of),
            actual: actual.map(Spec::of),
            outcome: None,
            detail: None,
        }
    }
}
