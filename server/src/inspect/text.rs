//! The lines of `--check` and `--dump`. Keys are escaped, and of values there is only the length:
//! what users keep is in no log and in no output.

use std::fmt::Display;
use std::io::{self, Write};

use bytes::Bytes;
use command::{Key, Take, TopicChange, TopicSettings, TopicWrite};
use raft::{Configuration, EntryKind, HardState, Position, Seating};
use store::{LoadError, View};
use wal::record::{Header, Kind, decode_hard_state};
use wal::{Error, FileReport, Finding, Holds, Tally, Verdict};

/// Where the lines go.
pub(super) struct Output<W> {
    to: W,
}

impl<W: Write> Output<W> {
    pub(super) fn new(to: W) -> Output<W> {
        Output { to }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// One line for a file: what it holds, and how it is.
    pub(super) fn file(&mut self, report: &FileReport<'_>) -> io::Result<()> {
        let file = report.file.escape_default();
        let held = held(&report.holds);
        match &report.finding {
            Finding::Sound => writeln!(self.to, "{file}: {held}ok"),
            Finding::Torn(torn) => writeln!(
                self.to,
                "{file}: {held}ok but for a torn end: {} bytes behind byte {} were never synced, \
                 and the next start erases them",
                torn.bytes, torn.offset
            ),
            Finding::Damaged(error) => writeln!(self.to, "{file}: {held}{}", damage(error)),
        }
    }

    /// One line for all of it.
    pub(super) fn verdict(&mut self, verdict: &Verdict) -> io::Result<()> {
        let server = verdict.server;
        let files = match verdict.damaged {
            1 => "1 file is".to_owned(),
            files => format!("{files} files are"),
        };
        let start = match &verdict.start {
            Ok(start) => start,
            Err(refusal) => {
                return writeln!(
                    self.to,
                    "damaged: {files} not as written; no server starts here: {refusal}"
                );
            }
        };
        let log = match start.last.index == start.before.index {
            true => format!("an empty log behind {}", place(start.before)),
            false => format!(
                "the log from index {} to {}",
                start.before.index.next(),
                place(start.last)
            ),
        };
        let snapshot = start.snapshot.as_ref().map_or(String::new(), |snapshot| {
            format!("the snapshot of {} and ", place(snapshot.position))
        });
        let found = format!("server {server} starts here with {snapshot}{log}");
        let recovers = "with two others or more to recover from";
        match (&verdict.lost, verdict.damaged) {
            (Some(lost), _) => writeln!(
                self.to,
                "damaged: {files} not as written, and what was acknowledged may be lost: {lost}; \
                 {recovers} {found}, and else not at all"
            ),
            (None, _) if start.recovering => writeln!(
                self.to,
                "recovering: an earlier start found something lost, and it is not known to be \
                 back; {recovers} {found}, and else not at all"
            ),
            (None, 0) => writeln!(self.to, "sound: {found}"),
            (None, _) => writeln!(
                self.to,
                "damaged: {files} not as written, and not needed: {found}"
            ),
        }
    }

    /// One line for a record, and one for each command in it.
    pub(super) fn record(
        &mut self,
        file: &str,
        offset: u64,
        header: &Header,
        payload: &[u8],
    ) -> io::Result<()> {
        let Position { term, index } = header.position;
        let batch = header.batch;
        let mut start = format!("{file} {offset} batch={batch} term={term}");
        if !matches!(header.kind, Kind::HardState) {
            start = format!("{start} index={index}");
        }
        match header.kind {
            Kind::Entry(EntryKind::NoOp) => writeln!(self.to, "{start} no_op"),
            Kind::Entry(EntryKind::Configuration) => {
                writeln!(self.to, "{start} configuration{}", configuration(payload))
            }
            Kind::Entry(EntryKind::Command) => self.commands(&start, payload),
            Kind::HardState => {
                let state = decode_hard_state(term, payload);
                let state = state.map_or(" unreadable".to_owned(), |state| hard_state(&state));
                writeln!(self.to, "{start} hard_state{state}")
            }
            Kind::Truncate => writeln!(self.to, "{start} truncate"),
            Kind::SegmentEnd => writeln!(self.to, "{start} segment_end"),
            Kind::Recovering => writeln!(self.to, "{start} recovering"),
            Kind::Recovered => writeln!(self.to, "{start} recovered"),
        }
    }

    /// One line for a snapshot's state, or for an item of it.
    pub(super) fn view(&mut self, file: &str, view: View<'_>) -> io::Result<()> {
        match view {
            View::State {
                log_time,
                item_bytes_max,
                memory_limit_bytes,
                flush_second,
                items,
                topics,
            } => {
                let flush = flush_second.map_or(String::new(), |it| format!(" flush_second={it}"));
                writeln!(
                    self.to,
                    "{file} state items={items} topics={topics} log_time_ms={} \
                     item_bytes_max={item_bytes_max} \
                     memory_limit_bytes={memory_limit_bytes}{flush}",
                    log_time.0
                )
            }
            View::Item {
                key,
                value_bytes,
                about,
            } => writeln!(
                self.to,
                "{file} item key=\"{}\" flags={} over_at={} value_bytes={value_bytes} unique={}{}{}",
                key.escape_ascii(),
                about.flags,
                about.over_at,
                about.unique,
                if about.marks.stale { " stale" } else { "" },
                if about.marks.token_sent {
                    " token_sent"
                } else {
                    ""
                },
            ),
            View::Topic {
                name,
                settings,
                next_id,
                messages,
            } => writeln!(
                self.to,
                "{file} topic name=\"{}\" messages={messages} next_id={next_id}{}",
                name.escape_ascii(),
                shown_settings(&settings),
            ),
            View::Message(message) => writeln!(
                self.to,
                "{file} message id={} state={} until={} since={} priority={} deliveries={} bytes={}",
                message.id,
                message.state,
                message.until,
                message.since,
                message.priority,
                message.deliveries,
                message.bytes,
            ),
        }
    }

    /// One line for a snapshot that is as it was written, and can't be loaded.
    pub(super) fn unreadable(&mut self, file: &str, problem: LoadError) -> io::Result<()> {
        writeln!(
            self.to,
            "{file}: no state that this release can read: {problem}"
        )
    }

    fn commands(&mut self, start: &str, payload: &[u8]) -> io::Result<()> {
        let bytes = payload.len();
        let (preamble, commands) = match command::decode(Bytes::copy_from_slice(payload)) {
            Ok(decoded) => decoded,
            Err(error) => return writeln!(self.to, "{start} commands unreadable: {error}"),
        };
        writeln!(
            self.to,
            "{start} commands={} bytes={bytes} log_time_ms={} item_bytes_max={} memory_limit_bytes={}",
            commands.total(),
            preamble.log_time.0,
            preamble.item_bytes_max,
            preamble.memory_limit_bytes
        )?;
        for (command, place) in commands.zip(0_u16..) {
            match command {
                Ok(write) => writeln!(self.to, "{start} command={place} {}", shown(&write))?,
                Err(error) => writeln!(self.to, "{start} command={place} unreadable: {error}")?,
            }
        }
        Ok(())
    }
}

/// What a file holds, up to what is said of it.
fn held(holds: &Holds) -> String {
    match holds {
        Holds::Meta {
            server,
            instance,
            restart,
            cluster,
            recovering,
            marked,
        } => format!(
            "server {server}, instance {instance}, cluster {}, start number {restart}, {}synced \
             up to index {marked} or further: ",
            or_none(*cluster),
            if *recovering { "recovering, " } else { "" }
        ),
        Holds::Segment { tally, bytes } => segment(tally, *bytes),
        Holds::Snapshot {
            snapshot,
            content_bytes,
            is_reached,
        } => format!(
            "the state after {}, {content_bytes} bytes, configuration of {}{}: ",
            place(snapshot.position),
            or_none(
                snapshot
                    .configuration
                    .as_ref()
                    .map(|entry| format!("index {}", entry.index))
            ),
            if *is_reached {
                ""
            } else {
                ", no substitute for a newer one since the log begins later"
            }
        ),
        Holds::Unused(what) => format!("{what}: "),
        Holds::Unknown => String::new(),
    }
}

fn segment(tally: &Tally, bytes: Option<u64>) -> String {
    let Tally {
        records, entries, ..
    } = tally;
    let which = match (tally.first, tally.last) {
        (Some(first), Some(last)) => format!(" from {} to {}", place(first), place(last)),
        _ => String::new(),
    };
    let bytes = bytes.map_or("so far".to_owned(), |bytes| format!("{bytes} bytes"));
    format!("{records} records, {entries} entries{which}, {bytes}: ")
}

/// What is wrong with a file that the line has named.
fn damage(error: &Error) -> String {
    match error {
        Error::Corrupt {
            offset, problem, ..
        } => format!("corrupt at byte {offset}: {problem}"),
        Error::Missing { .. } => "missing".to_owned(),
        Error::OtherServer {
            expected, found, ..
        } => format!("of server {found}, not of server {expected}"),
        other => other.to_string(),
    }
}

fn place(position: Position) -> String {
    format!("index {} of term {}", position.index, position.term)
}

fn or_none(value: Option<impl Display>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}

fn hard_state(state: &HardState) -> String {
    let voted_for = or_none(state.voted_for);
    let seating = match state.seating {
        Seating::Unseated => "unseated".to_owned(),
        Seating::Met(cluster) => format!("met cluster={cluster}"),
        Seating::Seated {
            cluster,
            configuration_index,
        } => format!("seated cluster={cluster} configuration_index={configuration_index}"),
    };
    format!(" voted_for={voted_for} seating={seating}")
}

fn configuration(payload: &[u8]) -> String {
    let Some(configuration) = Configuration::decode(Bytes::copy_from_slice(payload)) else {
        return " unreadable".to_owned();
    };
    let members = configuration.members.iter().map(|member| {
        let seat = or_none(member.seat);
        let address = member.address.escape_ascii();
        format!(" member={} seat={seat} address=\"{address}\"", member.id)
    });
    let members: String = members.collect();
    format!(" cluster={}{members}", configuration.cluster)
}

fn quoted(key: &Key) -> String {
    format!("\"{}\"", key.as_bytes().escape_ascii())
}

/// A command with its operands, but for the value.
fn shown(write: &command::Write) -> String {
    match write {
        command::Write::Store(store) => {
            let unique = store.mode.unique();
            let unique = unique.map_or(String::new(), |unique| format!(" unique={unique}"));
            format!(
                "{} key={} flags={} exptime={} value_bytes={}{unique}",
                store.mode.name(),
                quoted(&store.key),
                store.flags,
                store.exptime.0,
                store.value.len()
            )
        }
        command::Write::Delete { key } => format!("delete key={}", quoted(key)),
        command::Write::Arithmetic {
            key,
            direction,
            delta,
        } => format!("{} key={} delta={delta}", direction.name(), quoted(key)),
        command::Write::Touch { key, exptime } => {
            format!("touch key={} exptime={}", quoted(key), exptime.0)
        }
        command::Write::GetAndTouch { keys, exptime } => {
            let keys: String = keys
                .iter()
                .map(|key| format!(" key={}", quoted(key)))
                .collect();
            format!("gat exptime={}{keys}", exptime.0)
        }
        command::Write::FlushAll { delay } => format!("flush_all delay={}", delay.0),
        command::Write::MemoryLimit { mib } => format!("cache_memlimit mib={mib}"),
        command::Write::MetaGet(_)
        | command::Write::MetaSet(_)
        | command::Write::MetaDelete(_)
        | command::Write::MetaArithmetic(_) => shown_meta(write),
        command::Write::Topic(write) => shown_topic(write),
    }
}

/// A change of a topic, with its operands.
fn shown_topic(write: &TopicWrite) -> String {
    let topic = quoted(&write.topic);
    match &write.change {
        TopicChange::Create(settings) => format!("topic name={topic}{}", shown_settings(settings)),
        TopicChange::Push {
            message,
            priority,
            delay,
        } => format!(
            "push name={topic} priority={priority} delay={delay} message_bytes={}",
            message.len()
        ),
        TopicChange::Take(Take { ttr: None, .. }) => format!("pop name={topic}"),
        TopicChange::Take(Take { ttr: Some(ttr), .. }) => format!("reserve name={topic} ttr={ttr}"),
        TopicChange::Ack { id } => format!("ack name={topic} id={id}"),
        TopicChange::Nack { id, delay } => format!("nack name={topic} id={id} delay={delay}"),
        TopicChange::Extend { id, ttr } => format!("extend name={topic} id={id} ttr={ttr}"),
        TopicChange::Kick { count } => format!("kick name={topic} count={count}"),
        TopicChange::Purge => format!("purge name={topic}"),
        TopicChange::Drop => format!("drop name={topic}"),
    }
}

/// Those that are set.
fn shown_settings(settings: &TopicSettings) -> String {
    let all = [
        ("max_length", settings.max_length),
        ("max_bytes", settings.max_bytes),
        ("max_age", u64::from(settings.max_age)),
        ("max_deliveries", u64::from(settings.max_deliveries)),
    ];
    let set = all.into_iter().filter(|(_, value)| *value > 0);
    set.map(|(name, value)| format!(" {name}={value}"))
        .collect()
}

/// A meta command, with the operands that it has.
fn shown_meta(write: &command::Write) -> String {
    let time = |name, time: Option<command::Exptime>| {
        time.map_or(String::new(), |time| format!(" {name}={}", time.0))
    };
    let number = |name, number: Option<u64>| {
        number.map_or(String::new(), |number| format!(" {name}={number}"))
    };
    let fact = |name: &'static str, is_so| if is_so { name } else { "" };
    let key = write.meta_key().map_or(String::new(), quoted);
    match write {
        command::Write::MetaGet(get) => {
            let recache = get.recache.map(|recache| recache.below);
            let times = time("exptime", get.touch) + &time("vivify", get.vivify);
            let rest = time("recache", recache) + &number("new_unique", get.unique);
            format!("mg key={key}{times}{rest}")
        }
        command::Write::MetaSet(set) => {
            let store = &set.store;
            let uniques = number("unique", set.compare) + &number("new_unique", set.unique);
            format!(
                "ms key={key} mode={} flags={} exptime={} value_bytes={}{}{uniques}{}",
                store.mode.name(),
                store.flags,
                store.exptime.0,
                store.value.len(),
                time("vivify", set.vivify),
                fact(" invalidate", set.invalidate),
            )
        }
        command::Write::MetaDelete(delete) => {
            let uniques = number("unique", delete.compare) + &number("new_unique", delete.unique);
            let facts = [
                fact(" invalidate", delete.invalidate),
                fact(" clear", delete.clear),
            ];
            format!(
                "md key={key}{}{uniques}{}",
                time("exptime", delete.touch),
                facts.concat()
            )
        }
        command::Write::MetaArithmetic(it) => {
            let uniques = number("unique", it.compare) + &number("new_unique", it.unique);
            let times = time("vivify", it.vivify) + &time("exptime", it.touch);
            let name = it.direction.name();
            format!(
                "ma key={key} mode={name} delta={} initial={}{times}{uniques}",
                it.delta, it.initial
            )
        }
        other => unreachable!("{other:?} is no meta command"),
    }
}
