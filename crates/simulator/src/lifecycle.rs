//! The orders in which the events of one interaction (or of one agent, one dialled record, one script) follow each other.
//!
//! The vendor document lists the events but no state diagram; these sequences follow its descriptions of them. Every type
//! of the catalogue is in at least one.

/// A sequence and how often it is chosen, relative to the others.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    pub(crate) weight: u32,
    pub(crate) steps: &'static [&'static str],
}

macro_rules! lifecycle {
    ($weight:literal: $($step:literal)+) => { Lifecycle { weight: $weight, steps: &[$($step),+] } };
}

pub(crate) const LIFECYCLES: &[Lifecycle] = &[
    // A call that comes in, is held, and is wrapped up.
    lifecycle!(10: "engagementCenter.ScreenPop" "engagementCenter.ActivateInteraction" "engagementCenter.Active"
        "engagementCenter.Held" "engagementCenter.Active" "engagementCenter.VoiceLock" "engagementCenter.VoiceUnlock"
        "engagementCenter.MessageStatus" "engagementCenter.Wrap" "engagementCenter.DispositionInitiated"
        "engagementCenter.Idle"),
    // A call that nobody accepts in time.
    lifecycle!(3: "engagementCenter.ScreenPop" "engagementCenter.AcceptCallTimeout" "engagementCenter.CallReRouted"
        "engagementCenter.InteractionClear"),
    // A consultation that becomes a conference and a transfer.
    lifecycle!(4: "engagementCenter.Active" "engagementCenter.ConsultInitiated" "engagementCenter.Consult"
        "engagementCenter.Conference" "engagementCenter.InteractionTransferred"
        "engagementCenter.InteractionReleasedXferred" "engagementCenter.Wrap" "engagementCenter.WrapTimeout"
        "engagementCenter.Idle"),
    // An outbound preview.
    lifecycle!(4: "engagementCenter.PreviewScreenPop" "engagementCenter.DialInitiated" "engagementCenter.Dialing"
        "engagementCenter.Active" "engagementCenter.Wrap" "engagementCenter.DispositionInitiated"
        "engagementCenter.Idle"),
    // An outbound call that fails.
    lifecycle!(2: "engagementCenter.DialInitiated" "engagementCenter.Dialing" "engagementCenter.Error"
        "engagementCenter.InteractionClear"),
    // A chat.
    lifecycle!(8: "engagementCenter.ScreenPop" "messaging.EntityAdded" "messaging.EntityList" "engagementCenter.Active"
        "messaging.EntitySendText" "messaging.EntitySendText" "messaging.EntitySendText" "messaging.EntityPushURL"
        "messaging.EntitySendText" "messaging.EntityDialRequest" "messaging.EntityRemoved" "engagementCenter.Wrap"
        "engagementCenter.Idle"),
    // A dialled Fast Path record.
    lifecycle!(4: "outreach.status" "outreach.status" "outreach.disposition"),
    lifecycle!(1: "outreach.automationScriptStatus" "outreach.automationScriptStatus"),
    // An agent's day.
    lifecycle!(2: "engagementCenter.Connecting" "engagementCenter.ConnectConfirm" "engagementCenter.AudioPathConnection"
        "engagementCenter.Connected" "engagementCenter.NewWorkType" "engagementCenter.NewTeam"
        "engagementCenter.NotReady" "engagementCenter.Idle" "engagementCenter.MultiTaskingStatus"
        "engagementCenter.ClientSessionKeepAlive" "engagementCenter.AgentStatistics" "engagementCenter.NotReadyPending"
        "engagementCenter.Park" "engagementCenter.AdvanceFeature" "engagementCenter.MonitorState"
        "engagementCenter.DisconnectPending" "engagementCenter.Disconnected"),
    // A telephone that misbehaves.
    lifecycle!(1: "engagementCenter.PhoneOffhook" "engagementCenter.PhoneFoul" "engagementCenter.PhoneReconnect"
        "engagementCenter.RecordingState"),
    // Mail.
    lifecycle!(1: "engagementCenter.ScreenPop" "engagementCenter.ReassignEmailAck" "engagementCenter.EmailRemoved"
        "engagementCenter.NewVoiceMail"),
    // What an administrator changes.
    lifecycle!(1: "engagementCenter.UpdateWorkType" "engagementCenter.UpdateDisposition"
        "engagementCenter.UpdateDispositionPlan" "engagementCenter.UpdateTeam"
        "engagementCenter.UpdateAgentStatusReason" "engagementCenter.RemoveTeam" "engagementCenter.RemoveWorkType"),
    // An outage of the back end.
    lifecycle!(1: "engagementCenter.TelephonyUnavailable" "engagementCenter.SystemUnavailable"
        "engagementCenter.SystemStandby" "engagementCenter.SystemAvailable" "engagementCenter.TelephonyAvailable"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn every_type_of_the_catalogue_is_reached_and_nothing_else() {
        for name in catalogue::event_types() {
            assert!(
                LIFECYCLES.iter().any(|lifecycle| lifecycle.steps.contains(&name)),
                "{name} is never emitted"
            );
        }
        for step in LIFECYCLES.iter().flat_map(|lifecycle| lifecycle.steps) {
            assert!(catalogue::position(step).is_some(), "{step} is not in the catalogue");
        }
    }
}
