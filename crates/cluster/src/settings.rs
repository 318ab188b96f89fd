//! The settings of a server: one list, from which come the flags, the environment variables and
//! the lines of `[settings]`, all with the same names and in that order of precedence.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use crate::file::toml_value;

/// What can be set, checked. Durations are whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// T to 2T: each election draws its own from this range.
    pub election_timeout: Range<Duration>,
    /// At most a third of T.
    pub heartbeat: Duration,
    /// The largest item: key, value and 56 bytes.
    pub value_bytes_max: usize,
    /// What all items may take together, in MiB; 0 for no limit. The leader's counts.
    pub memory_limit_mib: u64,
    /// Client connections at a time.
    pub connections_max: usize,
    /// How long a command may be in coming, from its first byte to its last.
    pub incomplete_command: Duration,
    pub followers: Followers,
    /// Threads that serve sockets, beside the evaluator's and the log's.
    pub threads: usize,
    /// A snapshot is taken once so many entries, or so many bytes of them, were applied since the
    /// last one.
    pub snapshot_entries: u64,
    pub snapshot_bytes: u64,
    /// Of the bytes of snapshots that a server sends to others, so many go out in a second, to all
    /// of them together.
    pub snapshot_send_rate: u64,
    /// What a snapshot covers of the log is kept as long as the log is not longer than this, so
    /// that a follower that was away for a moment needs no snapshot.
    pub log_kept_bytes: u64,
    /// Of what lies on disk, so many bytes are read again in a second; none if it is 0.
    pub scrub_rate: u64,
    /// From when all of it begins to be read again to the next time, if it has all been read by then.
    pub scrub_interval: Duration,
    /// While something is written, the servers compare hashes of their states this often.
    pub state_hash_interval: Duration,
    /// The length of one file of the log: a multiple of 4096. Only whole files are dropped.
    pub log_segment_bytes: u64,
    pub log_format: LogFormat,
    /// Which log lines are printed, in the language of tracing's `EnvFilter`.
    pub log_level: String,
}

/// What a server that is not the leader does with a client's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followers {
    /// It answers where the leader is.
    Redirect,
    /// It sends the command on, and gives back the leader's reply.
    Forward,
}

/// The form of the log lines on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
            heartbeat: Duration::from_millis(50),
            value_bytes_max: 1 << 20,
            memory_limit_mib: 0,
            connections_max: 10_000,
            incomplete_command: Duration::from_secs(30),
            followers: Followers::Redirect,
            threads: 2,
            snapshot_entries: 1_000_000,
            snapshot_bytes: 256 << 20,
            snapshot_send_rate: 64 << 20,
            log_kept_bytes: 64 << 20,
            scrub_rate: 5 << 20,
            scrub_interval: Duration::from_secs(24 * 60 * 60),
            state_hash_interval: Duration::from_secs(60),
            log_segment_bytes: 64 << 20,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
        }
    }
}

/// One setting: its names, what it is for, and how its value is read and shown.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As in `[settings]`, with underscores.
    pub name: &'static str,
    /// What its value looks like.
    pub value: &'static str,
    /// One line.
    pub help: &'static str,
    set: fn(&mut Settings, &str) -> Option<()>,
    show: fn(&Settings) -> String,
}

/// All settings, in the order in which they are shown.
pub const SETTINGS: [Setting; 18] = [
    Setting {
        name: "election_timeout_ms",
        value: "MIN..MAX",
        help: "A server that hears from no leader for this long stands for election",
        set: |settings, value| {
            let (least, most) = value.split_once("..")?;
            let least = number(least, &(10..=60_000))?;
            let most = number(most, &(least + 1..=120_000))?;
            settings.election_timeout = Duration::from_millis(least)..Duration::from_millis(most);
            Some(())
        },
        show: |settings| {
            let range = &settings.election_timeout;
            format!("{}..{}", range.start.as_millis(), range.end.as_millis())
        },
    },
    Setting {
        name: "heartbeat_ms",
        value: "1..20000",
        help: "How often a leader asserts itself; at most a third of the election timeout",
        set: |settings, value| {
            settings.heartbeat = Duration::from_millis(number(value, &(1..=20_000))?);
            Some(())
        },
        show: |settings| settings.heartbeat.as_millis().to_string(),
    },
    Setting {
        name: "value_bytes_max",
        value: "1024..3145728",
        help: "The largest item: key, value and 56 bytes more",
        set: |settings, value| {
            settings.value_bytes_max = size(value, &(1024..=3 << 20))?;
            Some(())
        },
        show: |settings| settings.value_bytes_max.to_string(),
    },
    Setting {
        name: "memory_limit_mib",
        value: "0, or 8..4294967295",
        help: "What all items may take together, in MiB; what would go over it is refused; 0 for no limit",
        set: |settings, value| {
            settings.memory_limit_mib = number(value, &(0..=u64::from(u32::MAX)))?;
            (settings.memory_limit_mib == 0 || settings.memory_limit_mib >= 8).then_some(())
        },
        show: |settings| settings.memory_limit_mib.to_string(),
    },
    Setting {
        name: "connections_max",
        value: "1..1000000",
        help: "Client connections at a time",
        set: |settings, value| {
            settings.connections_max = size(value, &(1..=1_000_000))?;
            Some(())
        },
        show: |settings| settings.connections_max.to_string(),
    },
    Setting {
        name: "incomplete_command_ms",
        value: "1..3600000",
        help: "A client that takes longer than this over one command is disconnected",
        set: |settings, value| {
            settings.incomplete_command = Duration::from_millis(number(value, &(1..=3_600_000))?);
            Some(())
        },
        show: |settings| settings.incomplete_command.as_millis().to_string(),
    },
    Setting {
        name: "followers",
        value: "redirect|forward",
        help: "What a server that is not the leader does with a command",
        set: |settings, value| {
            settings.followers = match value {
                "redirect" => Followers::Redirect,
                "forward" => Followers::Forward,
                _ => return None,
            };
            Some(())
        },
        show: |settings| settings.followers.to_string(),
    },
    Setting {
        name: "threads",
        value: "1..64",
        help: "Threads that serve sockets",
        set: |settings, value| {
            settings.threads = size(value, &(1..=64))?;
            Some(())
        },
        show: |settings| settings.threads.to_string(),
    },
    Setting {
        name: "snapshot_entries",
        value: "1..1000000000",
        help: "A snapshot is taken after so many entries of the log",
        set: |settings, value| {
            settings.snapshot_entries = number(value, &(1..=1_000_000_000))?;
            Some(())
        },
        show: |settings| settings.snapshot_entries.to_string(),
    },
    Setting {
        name: "snapshot_bytes",
        value: "4096..1099511627776",
        help: "A snapshot is taken after so many bytes of commands, if that comes first",
        set: |settings, value| {
            settings.snapshot_bytes = number(value, &(4096..=1 << 40))?;
            Some(())
        },
        show: |settings| settings.snapshot_bytes.to_string(),
    },
    Setting {
        name: "snapshot_send_rate",
        value: "4096..1099511627776",
        help: "So many bytes of snapshots are sent to other servers in a second",
        set: |settings, value| {
            settings.snapshot_send_rate = number(value, &(4096..=1 << 40))?;
            Some(())
        },
        show: |settings| settings.snapshot_send_rate.to_string(),
    },
    Setting {
        name: "log_kept_bytes",
        value: "0..1099511627776",
        help: "So much of the log is kept even though snapshots cover it",
        set: |settings, value| {
            settings.log_kept_bytes = number(value, &(0..=1 << 40))?;
            Some(())
        },
        show: |settings| settings.log_kept_bytes.to_string(),
    },
    Setting {
        name: "scrub_rate",
        value: "0, or 4096..1099511627776",
        help: "So many bytes on disk are read again in a second, to find what has rotted; 0 for none",
        set: |settings, value| {
            settings.scrub_rate = number(value, &(0..=1 << 40))?;
            (settings.scrub_rate == 0 || settings.scrub_rate >= 4096).then_some(())
        },
        show: |settings| settings.scrub_rate.to_string(),
    },
    Setting {
        name: "scrub_interval_ms",
        value: "100..31536000000",
        help: "How often all that is on disk is read again",
        set: |settings, value| {
            let interval = number(value, &(100..=31_536_000_000))?;
            settings.scrub_interval = Duration::from_millis(interval);
            Some(())
        },
        show: |settings| settings.scrub_interval.as_millis().to_string(),
    },
    Setting {
        name: "state_hash_interval_ms",
        value: "100..31536000000",
        help: "How often the servers compare their states, while something is written",
        set: |settings, value| {
            let interval = number(value, &(100..=31_536_000_000))?;
            settings.state_hash_interval = Duration::from_millis(interval);
            Some(())
        },
        show: |settings| settings.state_hash_interval.as_millis().to_string(),
    },
    Setting {
        name: "log_segment_bytes",
        value: "8192..1073741824, a multiple of 4096",
        help: "The length of one file of the log",
        set: |settings, value| {
            let bytes = number(value, &(8192..=1 << 30))?;
            settings.log_segment_bytes = bytes;
            bytes.is_multiple_of(4096).then_some(())
        },
        show: |settings| settings.log_segment_bytes.to_string(),
    },
    Setting {
        name: "log_format",
        value: "text|json",
        help: "The form of the log lines on standard error",
        set: |settings, value| {
            settings.log_format = match value {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return None,
            };
            Some(())
        },
        show: |settings| settings.log_format.to_string(),
    },
    Setting {
        name: "log_level",
        value: "error|warn|info|debug|trace",
        help: "Which log lines are printed, also by part: info,quorate_server=debug",
        set: |settings, value| {
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return None;
            }
            value.clone_into(&mut settings.log_level);
            Some(())
        },
        show: |settings| settings.log_level.clone(),
    },
];

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Flag,
    Environment,
    File,
    Default,
}

/// What is wrong with a setting. Each is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("{name}: {value:?} is not one of {expected}")]
    Value {
        /// As its source spells it: `--heartbeat-ms`, `QUORATE_HEARTBEAT_MS`,
        /// `[settings] heartbeat_ms`.
        name: String,
        value: String,
        expected: &'static str,
    },
    #[error(
        "heartbeat_ms: {heartbeat_ms} is more than a third of the election timeout, {least_ms} ms"
    )]
    Heartbeat { heartbeat_ms: u128, least_ms: u128 },
}

impl Setting {
    /// The setting with this name, whose words may be joined by underscores or by hyphens.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Setting> {
        const ALL: &[Setting] = &SETTINGS;
        ALL.iter()
            .find(|setting| setting.name == name || setting.flag() == name)
    }

    /// Its flag, without the two hyphens before it: `heartbeat-ms`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Its environment variable: `QUORATE_HEARTBEAT_MS`.
    #[must_use]
    pub fn environment(&self) -> String {
        format!("QUORATE_{}", self.name.to_ascii_uppercase())
    }

    /// Its value in `settings`.
    #[must_use]
    pub fn show(&self, settings: &Settings) -> String {
        (self.show)(settings)
    }
}

impl Settings {
    /// What holds, given the flags that were used, the environment and the lines of `[settings]`
    /// (`Cluster::settings`). `flags` and `environment` are asked with the names that
    /// `Setting::flag` and `Setting::environment` give.
    ///
    /// # Errors
    /// The first value that is not possible.
    pub fn resolve(
        flags: impl Fn(&str) -> Option<String>,
        environment: impl Fn(&str) -> Option<String>,
        file: &BTreeMap<String, String>,
    ) -> Result<(Settings, Vec<Source>), SettingError> {
        let mut settings = Settings::default();
        let mut sources = Vec::with_capacity(SETTINGS.len());
        for setting in SETTINGS {
            let (source, name, value) = if let Some(value) = flags(&setting.flag()) {
                (Source::Flag, format!("--{}", setting.flag()), value)
            } else if let Some(value) = environment(&setting.environment()) {
                (Source::Environment, setting.environment(), value)
            } else if let Some(value) = file.get(setting.name) {
                let name = format!("[settings] {}", setting.name);
                (Source::File, name, value.clone())
            } else {
                sources.push(Source::Default);
                continue;
            };
            if (setting.set)(&mut settings, value.trim()).is_none() {
                return Err(SettingError::Value {
                    name,
                    value,
                    expected: setting.value,
                });
            }
            sources.push(source);
        }
        settings.check()?;
        Ok((settings, sources))
    }

    /// The lines of a `[settings]` with these values, each with where it came from.
    #[must_use]
    pub fn to_toml(&self, sources: &[Source]) -> String {
        let mut text = String::from("[settings]\n");
        for (setting, source) in SETTINGS.iter().zip(sources) {
            let value = toml_value(&setting.show(self));
            text.push_str(&format!("{} = {value} # {source}\n", setting.name));
        }
        text
    }

    /// What must hold between settings.
    fn check(&self) -> Result<(), SettingError> {
        // A lost heartbeat or two must not cost an election (rule 26).
        if self.heartbeat * 3 > self.election_timeout.start {
            return Err(SettingError::Heartbeat {
                heartbeat_ms: self.heartbeat.as_millis(),
                least_ms: self.election_timeout.start.as_millis(),
            });
        }
        Ok(())
    }
}

fn number(text: &str, range: &RangeInclusive<u64>) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok())??;
    range.contains(&number).then_some(number)
}

fn size(text: &str, range: &RangeInclusive<u64>) -> Option<usize> {
    usize::try_from(number(text, range)?).ok()
}

impl fmt::Display for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Followers::Redirect => "redirect",
            Followers::Forward => "forward",
        })
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Flag => "flag",
            Source::Environment => "environment",
            Source::File => "file",
            Source::Default => "default",
        })
    }
}
