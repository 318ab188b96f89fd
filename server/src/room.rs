//! A channel to the evaluator whose sender reserves room first, in bytes (rule 59). There is a
//! place for every reservation that can be held, so that a send neither blocks nor fails, and what
//! waits in the channel is bounded whatever its size.

use std::sync::Arc;

use crossbeam_channel::{Receiver, TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use crate::bell::{self, Bell, Sender};

/// Room is counted in units of this size, and everything takes at least one.
const UNIT_BYTES: usize = 4 << 10;

/// A value in the channel, with the room that it takes. The room is free again when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Reserved<T> {
    pub(crate) value: T,
    _room: Room,
}

/// Room for one value.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
}

/// The sending side.
#[derive(Debug)]
pub(crate) struct RoomSender<T> {
    room: Arc<Semaphore>,
    units_max: usize,
    sender: Sender<Reserved<T>>,
}

/// A channel in which values of up to `bytes_max` bytes wait, with the bell of its receiver.
pub(crate) fn channel<T>(bytes_max: usize, bell: &Bell) -> (RoomSender<T>, Receiver<Reserved<T>>) {
    let units_max = bytes_max / UNIT_BYTES;
    let (sender, receiver) = bell::bounded(units_max, bell);
    let sender = RoomSender {
        room: Arc::new(Semaphore::new(units_max)),
        units_max,
        sender,
    };
    (sender, receiver)
}

impl<T> Clone for RoomSender<T> {
    fn clone(&self) -> RoomSender<T> {
        RoomSender {
            room: Arc::clone(&self.room),
            units_max: self.units_max,
            sender: self.sender.clone(),
        }
    }
}

impl<T> RoomSender<T> {
    /// Waits for room for so many bytes; all there is, if that is less.
    pub(crate) async fn reserve(&self, bytes: usize) -> Room {
        let room = Arc::clone(&self.room).acquire_many_owned(self.units(bytes));
        Room::from_permit(room.await.expect("the semaphore is never closed"))
    }

    /// Sends into room that is large enough. False when nobody receives any more.
    pub(crate) fn send(&self, room: Room, value: T) -> bool {
        let reserved = Reserved { value, _room: room };
        match self.sender.try_send(reserved) {
            Ok(()) => true,
            Err(TrySendError::Disconnected(_)) => false,
            Err(TrySendError::Full(_)) => unreachable!("each reservation has a place"),
        }
    }

    /// For those who wait for room by polling, with `units` and `Room::from_permit`.
    pub(crate) fn poll_room(&self) -> PollSemaphore {
        PollSemaphore::new(Arc::clone(&self.room))
    }

    /// How much of the semaphore so many bytes take.
    pub(crate) fn units(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, self.units_max);
        u32::try_from(units).expect("a channel holds less than 16 TiB")
    }
}

impl Room {
    pub(crate) fn from_permit(permit: OwnedSemaphorePermit) -> Room {
        Room { _permit: permit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_bounded_in_bytes_and_free_again_once_a_value_was_taken() {
        let (sender, receiver) = channel(4 * UNIT_BYTES, &Bell::default());
        let first = sender.reserve(1).await;
        let second = sender.reserve(2 * UNIT_BYTES + 1).await;
        assert!(sender.send(first, "first"));
        assert!(sender.send(second, "second"));

        let mut third = Box::pin(sender.reserve(UNIT_BYTES));
        let none = std::future::poll_fn(|context| {
            std::task::Poll::Ready(third.as_mut().poll(context).is_pending())
        });
        assert!(none.await, "four units are taken");
        assert_eq!(receiver.recv().expect("it was sent").value, "first");
        assert!(sender.send(third.await, "third"));
    }

    #[tokio::test]
    async fn what_is_larger_than_the_channel_takes_all_of_it() {
        let (sender, receiver) = channel(2 * UNIT_BYTES, &Bell::default());
        let room = sender.reserve(100 * UNIT_BYTES).await;
        assert!(sender.send(room, ()));
        drop(receiver.recv());
        drop(receiver);
        let room = sender.reserve(1).await;
        assert!(!sender.send(room, ()), "nobody receives");
    }
}
