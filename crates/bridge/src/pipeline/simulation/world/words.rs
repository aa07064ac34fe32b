//! The words of a history.

use viaduct_poller::simulation::Call;

use super::super::broker::{Answer, Request};
use super::super::instance::MAX_EVENTS;
use super::Flight;

pub(super) fn request_words(flight: &Flight) -> String {
    let what = match &flight.request {
        Request::Fence => "fence".to_owned(),
        Request::Read => "read the checkpoint".to_owned(),
        Request::Commit { claim: true, .. } => "claim".to_owned(),
        Request::Commit { records, .. } | Request::Append(records) => {
            let names: Vec<&str> = records.iter().map(|record| &*record.message_id).collect();
            format!("store {names:?}")
        }
    };
    format!("request {}, {what}", flight.number)
}

pub(super) fn answer_words(answer: &Answer) -> String {
    match answer {
        Answer::Read(sequence, None) => format!("at {sequence} stands nothing"),
        Answer::Read(sequence, Some(found)) => {
            let pages = found.pages.iter().map(|(page, text)| (page, String::from_utf8_lossy(text)));
            let pages: Vec<_> = pages.collect();
            format!("at {sequence} stands {} {pages:?}", String::from_utf8_lossy(&found.text))
        }
        other => format!("{other:?}"),
    }
}

pub(super) fn call_words(call: &Call) -> String {
    match call {
        Call::CreateSession => "POST session".to_owned(),
        Call::ListSubscriptions(session) => format!("GET subscriptions of {}", session.as_str()),
        Call::ChangeSubscription(session, _) => format!("POST subscription of {}", session.as_str()),
        Call::Poll(session, max) => {
            debug_assert!(*max <= MAX_EVENTS);
            format!("GET {max} events of {}", session.as_str())
        }
        Call::DeleteSession(session) => format!("DELETE session {}", session.as_str()),
    }
}
