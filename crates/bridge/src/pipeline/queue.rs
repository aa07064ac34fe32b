//! An unbounded queue from its senders to one receiver, which takes no memory while it is empty. A bridge has two lanes and
//! more per source, and nearly all of them are empty nearly always; a channel of tokio's keeps room for 32 items.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A queue's two ends.
pub(super) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { items: VecDeque::new(), senders: 1, receiver: true };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
    (Sender(shared.clone()), Receiver(shared))
}

/// Puts items in.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// Takes items out.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// The queue was empty and is not any more, or the last sender is gone.
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    senders: usize,
    receiver: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Adds an item behind all others. It is dropped where the receiver is gone.
    pub(super) fn send(&self, item: T) {
        let mut state = self.0.lock();
        if !state.receiver {
            return;
        }
        let was_empty = state.items.is_empty();
        state.items.push_back(item);
        drop(state);
        if was_empty {
            self.0.changed.notify_one();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        let was_last = state.senders == 0;
        drop(state);
        if was_last {
            self.0.changed.notify_one();
        }
    }
}

impl<T> Receiver<T> {
    /// Moves all that is there behind what is in `taken`. Tells whether more may come.
    pub(super) fn take_all(&mut self, taken: &mut VecDeque<T>) -> bool {
        let mut state = self.0.lock();
        if taken.is_empty() {
            std::mem::swap(taken, &mut state.items);
        } else {
            taken.append(&mut state.items);
        }
        state.senders > 0
    }

    /// Waits until there may be something to take, or no more to come. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        self.0.changed.notified().await;
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver = false;
        let items = std::mem::take(&mut state.items);
        drop(state);
        drop(items);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn all<T>(receiver: &mut Receiver<T>) -> (Vec<T>, bool) {
        let mut taken = VecDeque::new();
        let open = receiver.take_all(&mut taken);
        (taken.into(), open)
    }

    #[test]
    fn items_come_out_in_order_behind_what_is_there() {
        let (sender, mut receiver) = queue();
        let other = sender.clone();
        sender.send(2);
        other.send(3);
        let mut taken = VecDeque::from([1]);
        assert!(receiver.take_all(&mut taken));
        assert_eq!(taken, [1, 2, 3]);
        assert_eq!(all(&mut receiver), (vec![], true));
    }

    #[test]
    fn an_item_wakes_the_receiver_also_where_it_came_before_the_wait() {
        let (sender, mut receiver) = queue();
        assert!(receiver.changed().now_or_never().is_none());
        sender.send(1);
        assert!(receiver.changed().now_or_never().is_some());
        assert_eq!(all(&mut receiver), (vec![1], true));
        sender.send(2);
        assert!(receiver.changed().now_or_never().is_some(), "taken empty, it tells again");
    }

    #[test]
    fn the_end_comes_with_the_last_sender_and_behind_the_last_item() {
        let (sender, mut receiver) = queue();
        let other = sender.clone();
        drop(sender);
        assert!(receiver.changed().now_or_never().is_none());
        other.send(1);
        drop(other);
        assert!(receiver.changed().now_or_never().is_some());
        assert_eq!(all(&mut receiver), (vec![1], false));
    }

    #[test]
    fn nothing_is_kept_for_a_receiver_that_is_gone() {
        let (sender, receiver) = queue();
        let (item, kept) = (Arc::new(()), Arc::new(()));
        sender.send(item.clone());
        drop(receiver);
        sender.send(kept.clone());
        assert_eq!((Arc::strong_count(&item), Arc::strong_count(&kept)), (1, 1));
    }
}
