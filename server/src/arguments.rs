//! The command line: what is asked of this process, checked.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use cluster::{Cluster, SETTINGS, Server, Settings, Source};

use crate::error::Error;

/// Shorter flags of settings, by the settings' names.
const ALIASES: [(&str, &str); 1] = [("memory_limit_mib", "memory-limit")];

/// The arguments that are no settings.
#[derive(Args, Debug)]
struct Arguments {
    /// This server's id in cluster.toml
    #[arg(long, value_name = "N", required_unless_present_any = ["check", "dump"])]
    id: Option<u64>,

    /// The members that a new cluster starts with
    #[arg(long, value_name = "FILE", required_unless_present_any = ["check", "dump"])]
    config: Option<PathBuf>,

    /// Where this server keeps its log; made if it is not there
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present_any = ["print_config", "check", "dump"]
    )]
    data_dir: Option<PathBuf>,

    /// End when the process that started this one ends; if a process id is given, also when that
    /// is not the parent any more at start
    #[arg(
        long,
        value_name = "PID",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0"
    )]
    die_with_parent: Option<u32>,

    /// Begin with the state of this backup, in a data directory that is empty: once, and all
    /// servers of a new cluster with the same one
    #[arg(long, value_name = "FILE")]
    restore: Option<PathBuf>,

    /// Print the configuration and where each setting comes from, and end
    #[arg(long)]
    print_config: bool,

    /// Verify every byte of the data directory of a server that is stopped, change nothing, and
    /// end: with 0 if it is sound, 1 if something is damaged or lost, 2 if it can't be checked
    #[arg(long, value_name = "DIR", exclusive = true)]
    check: Option<PathBuf>,

    /// As --check, and print what the log holds: a line for each record and each command, with
    /// keys and without values
    #[arg(long, value_name = "DIR", exclusive = true)]
    dump: Option<PathBuf>,
}

/// A process is to end with its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DieWithParent {
    Parent,
    /// The parent has this process id.
    Process(u32),
}

/// What this process is to do.
#[derive(Debug)]
pub(crate) enum Task {
    Serve(Box<Service>),
    /// Print this.
    Print(String),
    Inspect(Inspect),
}

/// A data directory, to be looked at.
#[derive(Debug)]
pub(crate) struct Inspect {
    pub(crate) data_dir: PathBuf,
    /// Print its records too.
    pub(crate) dump: bool,
}

/// One server, to be run.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its entry in `cluster`.
    pub(crate) server: Server,
    pub(crate) cluster: Cluster,
    pub(crate) settings: Settings,
    pub(crate) data_dir: PathBuf,
    /// The backup to begin with.
    pub(crate) restore: Option<PathBuf>,
    pub(crate) die_with_parent: Option<DieWithParent>,
}

/// Reads the command line, the environment and the file that the command line names.
///
/// # Errors
/// What can't work, or clap's answer to a malformed command line or a request for help.
pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let arguments = Arguments::from_arg_matches(&matches)?;
    let dump = arguments.dump.is_some();
    if let Some(data_dir) = arguments.check.or(arguments.dump) {
        return Ok(Task::Inspect(Inspect { data_dir, dump }));
    }
    let (id, file) = arguments
        .id
        .zip(arguments.config)
        .expect("clap requires both");
    let problem = |problem: String| Error::Config {
        file: file.clone(),
        problem,
    };
    let text = std::fs::read_to_string(&file).map_err(|error| problem(error.to_string()))?;
    let cluster = Cluster::parse(&text).map_err(|error| problem(error.to_string()))?;
    let Some(server) = cluster.server(id).cloned() else {
        return Err(Error::UnknownId { id, file });
    };
    let (settings, sources) = Settings::resolve(
        |flag| given(&matches, flag),
        |variable| std::env::var(variable).ok(),
        cluster.settings(),
    )?;
    let Some(data_dir) = arguments.data_dir.filter(|_| !arguments.print_config) else {
        let configuration = configuration(id, &cluster, &settings, &sources);
        return Ok(Task::Print(configuration));
    };
    Ok(Task::Serve(Box::new(Service {
        server,
        cluster,
        settings,
        data_dir,
        restore: arguments.restore,
        die_with_parent: arguments.die_with_parent.map(|parent| match parent {
            0 => DieWithParent::Parent,
            process => DieWithParent::Process(process),
        }),
    })))
}

/// The fixed arguments, and a flag for each setting.
fn command() -> Command {
    let defaults = Settings::default();
    let command = Command::new("quorate-server").version(env!("CARGO_PKG_VERSION"));
    // The description of the arguments is not the program's.
    let command = Arguments::augment_args(command).about("One server of a quorate cluster");
    SETTINGS.iter().fold(command, |command, setting| {
        let aliases = ALIASES.iter().filter(|(name, _)| *name == setting.name);
        command.arg(
            Arg::new(setting.flag())
                .long(setting.flag())
                .visible_aliases(aliases.map(|(_, alias)| *alias))
                .value_name(setting.value)
                .help(format!(
                    "{} [env: {}] [default: {}]",
                    setting.help,
                    setting.environment(),
                    setting.show(&defaults),
                ))
                .help_heading("Settings"),
        )
    })
}

/// The value of a setting's flag, if it was used.
fn given(matches: &ArgMatches, flag: &str) -> Option<String> {
    let used = matches.value_source(flag) == Some(ValueSource::CommandLine);
    used.then(|| matches.get_one::<String>(flag).cloned())?
}

/// A cluster.toml with the members and the settings as they are in effect.
fn configuration(id: u64, cluster: &Cluster, settings: &Settings, sources: &[Source]) -> String {
    let members = Cluster::new(cluster.servers().to_vec()).expect("they were checked");
    let members = members.to_toml();
    let settings = settings.to_toml(sources);
    format!("# The configuration of server {id}.\n{members}{settings}")
}
