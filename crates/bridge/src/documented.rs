//! The event types that the vendor's document lists: the one place where the bridge takes them from.

/// All of them, in the document's order.
pub(crate) fn event_types() -> impl Iterator<Item = &'static str> {
    viaduct_catalogue::listed().map(|event| event.event_type.as_str())
}
