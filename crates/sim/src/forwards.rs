//! What followers forward to leaders, and what comes back: over the connection that the follower
//! has made, in order. The server's own connection for it loses and repeats nothing; this one does
//! at times, since the evaluator is to notice.

use bytes::{Buf, Bytes};
use evaluator::{ForwardMessage, Input, Stream, TO_FOLLOWER_BYTES_MAX};
use raft::ServerId;
use rand::RngExt;
use wire::{Outgoing, Piece};

use crate::host::FromClient;
use crate::world::{Event, MS, World};

/// A connection of this kind loses so many times fewer frames than the others, and repeats as many
/// fewer.
const SOUNDER: u32 = 10;

/// What is repeated comes again within this time.
const REPEATED_NS: u64 = 500 * MS;

/// How long a leader takes to notice that a follower's connection is gone.
const NOTICED_NS: u64 = 50 * MS;

impl World {
    pub(crate) fn sends_forward(&mut self, from: ServerId, to: ServerId, message: &ForwardMessage) {
        let caller = if message.is_to_leader() { from } else { to };
        let callee = if message.is_to_leader() { to } else { from };
        let process = self.host(caller).process.as_ref();
        let link = process.and_then(|process| process.links.get(&callee));
        let Some(version) = link.and_then(|link| link.version) else {
            return;
        };
        let mut outgoing = Outgoing::new();
        outgoing.push_forward(version, message.encode());
        let mut bytes = outgoing.copy_to_bytes(outgoing.remaining());
        let length = bytes.get_u32_le() as usize;
        assert!(length == bytes.len(), "{message:?} takes several frames");
        self.transmit_forward(from, to, &bytes);
    }

    fn transmit_forward(&mut self, from: ServerId, to: ServerId, bytes: &Bytes) {
        self.coverage.forward_frames += 1;
        let chance = |world: &mut World, per_mille: u32| {
            !world.healed
                && per_mille > 0
                && world.random.random_range(0..1000 * SOUNDER) < per_mille
        };
        if chance(self, self.options.loss) {
            self.coverage.lost_frames += 1;
            return;
        }
        let after = 20_000 + self.latency();
        let now = self.now;
        let way = self.links.entry((from, to)).or_default();
        way.forwards_until = way.forwards_until.max(now + after);
        let at = way.forwards_until;
        let frame = Event::Frame {
            from,
            to,
            bytes: bytes.clone(),
            sent_at: now,
        };
        if chance(self, self.options.duplicates) {
            // As from a connection of old.
            let after = self.up_to(REPEATED_NS);
            self.schedule_at(at + after, frame.clone());
        }
        self.schedule_at(at, frame);
    }

    pub(crate) fn forward_frame(&mut self, from: ServerId, to: ServerId, piece: &Piece) {
        let message = ForwardMessage::decode(&piece.bytes, TO_FOLLOWER_BYTES_MAX);
        let message =
            message.unwrap_or_else(|error| panic!("our own message can't be read: {error}"));
        if !message.is_to_leader() {
            self.peer_input(to, Input::Forward(from, message));
            return;
        }
        if let Some(process) = &mut self.host_mut(to).process {
            let newest = process.streams.entry(from).or_default();
            *newest = message.stream.max(*newest);
            process
                .clients
                .push_back(FromClient::Forward(from, message));
        }
        self.wake_for_client(to);
    }

    /// The connection that `from` has made to `to` is gone, or `from` is.
    pub(crate) fn forwards_end(&mut self, from: ServerId, to: ServerId) {
        let after = self.up_to(NOTICED_NS);
        let process = self.host(to).process.as_ref();
        if let Some(stream) = process.and_then(|process| process.streams.get(&from)) {
            let stream = *stream;
            self.schedule(after, Event::FollowerGone(to, from, stream));
        }
    }

    pub(crate) fn follower_gone(&mut self, id: ServerId, follower: ServerId, stream: Stream) {
        if let Some(process) = &mut self.host_mut(id).process {
            process
                .clients
                .push_back(FromClient::FollowerGone(follower, stream));
        }
        self.wake_for_client(id);
    }
}
