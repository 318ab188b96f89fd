//! The clients' connections: what clients send, how a server serves them, what they hear.

use bytes::{Buf, Bytes, BytesMut};
use evaluator::{Batch, ConnectionId};
use protocol::{Limits, Session};
use raft::ServerId;
use rand::RngExt;

use crate::check::OpId;
use crate::client::{Connection, Request};
use crate::host::{FromClient, ServerSide};
use crate::options::{Fault, Forwards};
use crate::world::{Event, MS, SECOND, World};

/// A client that has heard nothing for so long gives its connection up.
const PATIENCE_NS: u64 = 3 * SECOND;

impl World {
    /// A client does what it does next: it connects, sends, waits or leaves.
    pub(crate) fn client_acts(&mut self, client: usize) {
        if self.settling.is_some() {
            return;
        }
        let after = MS + self.up_to(self.options.think_ms * MS);
        self.schedule(after, Event::Client(client));
        let now = self.now;
        let Some(connection) = &self.clients[client].connection else {
            self.client_connects(client);
            return;
        };
        let (waits, sent_at) = (!connection.waits.is_empty(), connection.sent_at);
        let ended = connection.ended;
        let leavers = self.options.has(Fault::Leavers);
        if leavers && self.random.random_range(0..40) == 0 || (waits && now - sent_at > PATIENCE_NS)
        {
            self.coverage.leavers += 1;
            self.client_leaves(client);
        } else if ended {
            if !waits {
                self.client_leaves(client);
            }
        } else if waits {
            if leavers && self.random.random_range(0..10) == 0 {
                self.client_ends(client);
            }
        } else {
            let count = self.random.random_range(1..=self.options.pipeline_max);
            let mut requests = Vec::new();
            for at in 0..count {
                let id = self.history.next() + at;
                let asked = &self.clients[client];
                requests.push(asked.draw(id, &self.options, &mut self.random));
            }
            self.client_sends(client, requests);
        }
    }

    pub(crate) fn client_connects(&mut self, client: usize) {
        let servers = self.options.servers;
        let anywhere = ServerId(self.random.random_range(1..=servers));
        let known = self.clients[client].hint.take();
        let known = known.or_else(|| self.leader_for(client));
        let server = known.unwrap_or(anywhere);
        let host = self.host_mut(server);
        let incarnation = host.incarnation;
        if host.process.is_none() {
            return;
        }
        let id = self.next_connection;
        self.next_connection += 1;
        let side = ServerSide {
            session: Session::new(Limits::default()),
            unread: BytesMut::new(),
            outcomes: std::collections::VecDeque::new(),
            known: false,
            is_full: false,
            ended: false,
            end_seen: false,
        };
        if let Some(process) = &mut self.host_mut(server).process {
            process.connections.insert(id, side);
        }
        self.clients[client].connection = Some(Connection::new(id, server, incarnation));
    }

    /// A client that stays where it is.
    fn is_loyal(&self, client: usize) -> bool {
        self.options.has(Fault::Nimble) && client % 2 == 1
    }

    /// Whom a nimble client takes for the leader: the newest, or if it is loyal the oldest.
    fn leader_for(&self, client: usize) -> Option<ServerId> {
        if !self.options.has(Fault::Nimble) {
            return None;
        }
        let leaders = self.hosts.iter().filter_map(|host| {
            let status = host.process.as_ref()?.evaluator.status();
            (status.role == "Leader").then_some((status.term, host.id))
        });
        let leader = match self.is_loyal(client) {
            true => leaders.min(),
            false => leaders.max(),
        };
        leader.map(|(_, id)| id)
    }

    /// Sends requests in one or several pieces.
    pub(crate) fn client_sends(&mut self, client: usize, requests: Vec<Request>) {
        let now = self.now;
        let Some(connection) = &mut self.clients[client].connection else {
            return;
        };
        let (id, server, life) = (connection.id, connection.server, connection.incarnation);
        let mut bytes = Vec::new();
        let mut begins: Vec<(usize, OpId)> = Vec::new();
        let mut ends: Vec<(usize, OpId)> = Vec::new();
        for request in requests {
            let op = self.history.asks(id, request.sent, request.noreply);
            self.coverage.commands += 1;
            self.coverage.noreply += u64::from(request.noreply);
            if !request.noreply {
                connection.waits.push_back((op, request.expected));
            }
            begins.push((bytes.len(), op));
            bytes.extend_from_slice(&request.text);
            ends.push((bytes.len(), op));
        }
        connection.sent_at = now;
        let mut at = connection.to_server_at.max(now);
        let mut sent = 0;
        let mut bytes = Bytes::from(bytes);
        while bytes.has_remaining() {
            let whole = self.random.random_range(0..2) == 0;
            let length = if whole {
                bytes.len()
            } else {
                self.random.random_range(1..=bytes.len())
            };
            let piece = bytes.split_to(length);
            sent += length;
            at += 10_000 + self.random.random_range(0..=500_000_u64);
            let begun = begins.extract_if(.., |(begin, _)| *begin < sent);
            let begun = begun.map(|(_, op)| op).collect();
            let complete = ends.extract_if(.., |(end, _)| *end <= sent);
            let complete = complete.map(|(_, op)| op).collect();
            if self.host(server).incarnation == life {
                let event = Event::ToServer {
                    server,
                    connection: id,
                    bytes: piece,
                    begins: begun,
                    ends: complete,
                };
                self.schedule_at(at, event);
            }
        }
        if let Some(connection) = &mut self.clients[client].connection {
            connection.to_server_at = at;
        }
    }

    pub(crate) fn server_receives(
        &mut self,
        server: ServerId,
        connection: u64,
        bytes: &[u8],
        (begins, ends): (&[OpId], &[OpId]),
    ) {
        let number = self.number;
        self.note(
            format_args!("{connection} to {server}: {}", bytes.escape_ascii()),
            bytes,
        );
        let Some(process) = &mut self.host_mut(server).process else {
            return;
        };
        let Some(side) = process.connections.get_mut(&connection) else {
            return;
        };
        side.unread.extend_from_slice(bytes);
        for op in begins {
            self.history.begins(*op, number);
        }
        for op in ends {
            self.history.received(*op, number);
        }
        self.serve(server, connection);
    }

    /// What the server's task of a connection does whenever something moved: outcomes to replies,
    /// commands to the evaluator, replies to the socket, and then it reads.
    pub(crate) fn serve(&mut self, server: ServerId, connection: u64) {
        let reads_max = self.random.random_range(1..=4096);
        let read_bytes = Limits::default().read_bytes;
        // Replies are short: most sockets take them whole.
        let mut writes_max = match self.random.random_range(0..16) {
            0 => self.random.random_range(0..64),
            _ => usize::MAX,
        };
        let mut written = Vec::new();
        let (mut handed, mut filled, mut stops_waiting) = (false, false, false);
        let Some(process) = &mut self.host_mut(server).process else {
            return;
        };
        let Some(side) = process.connections.get_mut(&connection) else {
            return;
        };
        loop {
            let mut moved = false;
            while let Some(outcomes) = side.outcomes.pop_front() {
                side.session.outcomes(outcomes, |_| Vec::new());
                moved = true;
            }
            while let Some(run) = side.session.next_run() {
                side.known = true;
                handed = true;
                process.clients.push_back(FromClient::Batch(Batch {
                    connection: ConnectionId(connection),
                    epoch: run.epoch,
                    commands: run.commands,
                    is_local: false,
                }));
                stops_waiting |= side.end_seen && side.session.awaits_message();
                moved = true;
            }
            while side.session.output().has_remaining() && !side.is_full {
                let chunk = side.session.output().chunk();
                let length = chunk.len().min(writes_max);
                side.is_full = length < chunk.len();
                writes_max -= length;
                if length > 0 {
                    let taken = chunk.get(..length).unwrap_or_default().to_vec();
                    side.session.written(length, side.unread.len() as u64);
                    written.push(taken);
                    moved = true;
                }
                filled |= side.is_full;
            }
            // While it waits for a message the client is listened to, to learn that it goes away.
            let awaits_message = side.session.awaits_message();
            if side.session.wants_input()
                || awaits_message && side.session.receive_buffer().len() < read_bytes
            {
                let length = side.unread.len().min(reads_max);
                let read = side.unread.split_to(length);
                side.session.receive_buffer().extend_from_slice(&read);
                moved |= length > 0;
                if side.ended && side.unread.is_empty() && !side.end_seen {
                    side.end_seen = true;
                    stops_waiting |= awaits_message;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        if stops_waiting {
            let connection = ConnectionId(connection);
            process
                .clients
                .push_back(FromClient::StopWaiting(connection));
            self.coverage.half_closed += 1;
            handed = true;
        }
        if handed {
            self.wake_for_client(server);
        }
        if filled {
            self.coverage.partial_writes += 1;
            let after = self.up_to(2 * MS);
            self.schedule(after, Event::Writable { server, connection });
        }
        for bytes in written {
            self.write_to_client(server, connection, Bytes::from(bytes));
        }
    }

    /// The kernel takes more replies again.
    pub(crate) fn writable(&mut self, server: ServerId, connection: u64) {
        if let Some(process) = &mut self.host_mut(server).process
            && let Some(side) = process.connections.get_mut(&connection)
        {
            side.is_full = false;
            self.serve(server, connection);
        }
    }

    fn write_to_client(&mut self, server: ServerId, connection: u64, bytes: Bytes) {
        let now = self.now;
        let written = self.number;
        let after = 10_000 + self.up_to(500_000);
        let client = self.clients.iter().position(|client| {
            let theirs = client.connection.as_ref();
            theirs.is_some_and(|theirs| theirs.id == connection && theirs.server == server)
        });
        let Some(client) = client else {
            return;
        };
        if let Some(theirs) = &mut self.clients[client].connection {
            let at = (now + after).max(theirs.to_client_at);
            theirs.to_client_at = at;
            let event = Event::ToClient {
                client,
                connection,
                bytes,
                written,
            };
            self.schedule_at(at, event);
        }
    }

    pub(crate) fn client_hears(
        &mut self,
        client: usize,
        connection: u64,
        bytes: &[u8],
        written: u64,
    ) {
        let theirs = self.clients[client].connection.as_mut();
        let Some(theirs) = theirs.filter(|theirs| theirs.id == connection) else {
            return;
        };
        let answers = theirs.hears(bytes);
        self.note(
            format_args!("{connection} hears: {}", bytes.escape_ascii()),
            bytes,
        );
        let mut redirected = false;
        for (id, answer) in answers {
            self.history
                .answered(id, &answer, written, &self.witness, &mut self.coverage);
            let what = self.history.what(id);
            self.clients[client].learns(what, &answer);
            redirected |= self.clients[client].hint.is_some();
            self.malformed_or_redirect(&answer);
        }
        let refused = self.options.has(Fault::Nimble) && self.clients[client].refused;
        if (redirected || refused) && !self.is_loyal(client) {
            self.client_leaves(client);
        }
        self.settling_hears(client);
    }

    fn malformed_or_redirect(&mut self, answer: &protocol::client::Answer) {
        use command::{Outcome, Refusal};
        use protocol::client::Answer;
        match answer {
            Answer::Error(_) => self.coverage.malformed += 1,
            Answer::Outcome(Outcome::NotDone(Refusal::Redirect { .. })) => {
                let forwards = self.options.forwards;
                assert!(forwards != Forwards::All, "nobody redirects in this mode");
                self.coverage.redirects += 1;
            }
            Answer::Outcome(Outcome::NotDone(Refusal::OutOfDisk)) => self.coverage.out_of_disk += 1,
            _ => {}
        }
    }

    /// A client closes its connection; what it had sent may still get there.
    pub(crate) fn client_leaves(&mut self, client: usize) {
        let Some(connection) = self.clients[client].connection.take() else {
            return;
        };
        let (server, id) = (connection.server, connection.id);
        if self.host(server).incarnation == connection.incarnation {
            let at = connection.to_server_at + 10_000;
            self.schedule_at(
                at,
                Event::Left {
                    server,
                    connection: id,
                },
            );
        }
    }

    /// A client says that it sends nothing more, and hears what it is still owed.
    fn client_ends(&mut self, client: usize) {
        let Some(connection) = &mut self.clients[client].connection else {
            return;
        };
        connection.ended = true;
        let (server, id, life) = (connection.server, connection.id, connection.incarnation);
        let at = connection.to_server_at.max(self.now) + 10_000;
        if self.host(server).incarnation == life {
            let connection = id;
            self.schedule_at(at, Event::Ended { server, connection });
        }
    }

    pub(crate) fn half_closed(&mut self, server: ServerId, connection: u64) {
        if let Some(process) = &mut self.host_mut(server).process
            && let Some(side) = process.connections.get_mut(&connection)
        {
            side.ended = true;
            self.serve(server, connection);
        }
    }

    /// The server is gone.
    pub(crate) fn lose_connection(&mut self, client: usize) {
        self.clients[client].connection = None;
    }

    pub(crate) fn left(&mut self, server: ServerId, connection: u64) {
        let Some(process) = &mut self.host_mut(server).process else {
            return;
        };
        if let Some(side) = process.connections.remove(&connection)
            && side.known
        {
            let gone = FromClient::Disconnected(ConnectionId(connection));
            process.clients.push_back(gone);
            self.wake(server);
        }
    }
}
