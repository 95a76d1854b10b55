//! The command line.

use std::{path::PathBuf, time::Duration};

use resilient_sse::{Builder, Disconnect, Durability, OnUnavailable, Overlap, Voice};

/// The output of `--help`. The parser also takes the names of the options from it.
pub(crate) const HELP: &str = "\
Usage: server [options]

  --listen ADDR             where to listen; port 0 picks a free one [127.0.0.1:3000]
  --store URL               memory, redis://…, rediss://…, redis+cluster://h:p,h:p, redis+sentinel://h:p,h:p/NAME [memory];
                            with ?sentinel_username=…&sentinel_password=…&sentinel_tls=false for the Sentinels themselves
  --node NAME               this node's name [random]
  --heartbeat S             silence before a heartbeat, in seconds [15]
  --stale S                 how long a node may be silent [30]
  --sweep S                 how often to look for orphans [30]
  --recovery-window S       how long an ended stream can be recovered [300]
  --lifetime S              how long a stream lives on after its producer was last heard of [3600]
  --drain S                 how long going down takes at most [25]
  --detach-at-most S        how long a stream runs on without a reader [600]
  --durability D            buffered or before-send [buffered]
  --on-disconnect D         interrupt, cancel or detach [detach]
  --on-unavailable D        serve, retry or status, while the store does not answer [serve]
  --voice V                 named, json, openai or silent [named]
  --overlap O               replace, refuse or allow: what a new turn of a conversation does to the running one [replace]
  --max-streams-per-user N  how many active streams a user may have [any number]
  --max-events N            how many events a log holds, on every route [the library's, by kind of route]
  --grace S                 how long nobody may read a stream before --on-disconnect applies [2]
  --hook-file FILE          gets a line of JSON for each stream that ends [none]
  --hook-delay S            how long to wait before that line is written [0]
  --key-prefix P            what the store's keys begin with [sse:]
  --jobs DIR                where background jobs keep their state files [none]
";

/// The options, from the command line or by default.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: String,
    pub(crate) store: String,
    pub(crate) node: Option<String>,
    pub(crate) heartbeat: Duration,
    stale: Duration,
    sweep: Duration,
    recovery_window: Duration,
    lifetime: Duration,
    drain: Duration,
    detach_at_most: Duration,
    durability: Durability,
    on_disconnect: OnDisconnect,
    on_unavailable: OnUnavailable,
    pub(crate) voice: Voice,
    pub(crate) overlap: Overlap,
    pub(crate) max_streams_per_user: Option<usize>,
    max_events: Option<usize>,
    pub(crate) grace: Duration,
    pub(crate) hook_file: Option<PathBuf>,
    pub(crate) hook_delay: Duration,
    pub(crate) key_prefix: String,
    pub(crate) jobs: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum OnDisconnect {
    Interrupt,
    Cancel,
    Detach,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:3000".to_owned(),
            store: "memory".to_owned(),
            node: None,
            heartbeat: Duration::from_secs(15),
            stale: Duration::from_secs(30),
            sweep: Duration::from_secs(30),
            recovery_window: Duration::from_secs(300),
            lifetime: Duration::from_secs(3600),
            drain: Duration::from_secs(25),
            detach_at_most: Duration::from_secs(600),
            durability: Durability::Buffered,
            on_disconnect: OnDisconnect::Detach,
            on_unavailable: OnUnavailable::Serve,
            voice: Voice::Named,
            overlap: Overlap::Replace,
            max_streams_per_user: None,
            max_events: None,
            grace: Duration::from_secs(2),
            hook_file: None,
            hook_delay: Duration::ZERO,
            key_prefix: "sse:".to_owned(),
            jobs: None,
        }
    }
}

impl Options {
    /// Reads the arguments, in the form `--name value` or `--name=value`. Returns `None` for `--help`. The error is a
    /// sentence that names the option and its rule.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--help" || argument == "-h" {
                return Ok(None);
            }
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            if !HELP.lines().any(|line| line.trim_start().split(' ').next() == Some(&*name)) {
                return Err(format!("there is no option `{name}`; --help lists them all"));
            }
            let value = value.or_else(|| arguments.next()).ok_or_else(|| format!("`{name}` needs a value"))?;
            options.set(&name, value)?;
        }
        Ok(Some(options))
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "--listen" => self.listen = value,
            "--store" => self.store = value,
            "--node" => self.node = Some(not_empty(name, value)?),
            "--heartbeat" => self.heartbeat = seconds(name, &value)?,
            "--stale" => self.stale = seconds(name, &value)?,
            "--sweep" => self.sweep = seconds(name, &value)?,
            "--recovery-window" => self.recovery_window = seconds(name, &value)?,
            "--lifetime" => self.lifetime = seconds(name, &value)?,
            "--drain" => self.drain = seconds(name, &value)?,
            "--detach-at-most" => self.detach_at_most = seconds(name, &value)?,
            "--durability" => {
                let words = [("buffered", Durability::Buffered), ("before-send", Durability::BeforeSend)];
                self.durability = one_of(name, &value, &words)?;
            }
            "--on-disconnect" => {
                use OnDisconnect::{Cancel, Detach, Interrupt};
                self.on_disconnect =
                    one_of(name, &value, &[("interrupt", Interrupt), ("cancel", Cancel), ("detach", Detach)])?;
            }
            "--on-unavailable" => {
                use OnUnavailable::{Retry, Serve, Status};
                self.on_unavailable = one_of(name, &value, &[("serve", Serve), ("retry", Retry), ("status", Status)])?;
            }
            "--voice" => {
                use Voice::{Json, Named, OpenAi, Silent};
                let words = [("named", Named), ("json", Json), ("openai", OpenAi), ("silent", Silent)];
                self.voice = one_of(name, &value, &words)?;
            }
            "--overlap" => {
                use Overlap::{Allow, Refuse, Replace};
                self.overlap = one_of(name, &value, &[("replace", Replace), ("refuse", Refuse), ("allow", Allow)])?;
            }
            "--max-streams-per-user" => self.max_streams_per_user = Some(count(name, &value)?),
            "--max-events" => self.max_events = Some(count(name, &value)?),
            "--grace" => self.grace = seconds(name, &value)?,
            "--hook-file" => self.hook_file = Some(not_empty(name, value)?.into()),
            "--hook-delay" => self.hook_delay = seconds(name, &value)?,
            "--key-prefix" => self.key_prefix = value,
            "--jobs" => self.jobs = Some(not_empty(name, value)?.into()),
            _ => return Err(format!("there is no option `{name}`; --help lists them all")),
        }
        Ok(())
    }

    /// Returns what happens to the work of a stream that had no reader for the grace period.
    pub(crate) fn disconnect(&self) -> Disconnect {
        match self.on_disconnect {
            OnDisconnect::Interrupt => Disconnect::Interrupt,
            OnDisconnect::Cancel => Disconnect::Cancel,
            OnDisconnect::Detach => Disconnect::Detach { at_most: self.detach_at_most },
        }
    }

    /// Applies the options to the builder of the hub.
    pub(crate) fn apply(&self, builder: Builder) -> Builder {
        let builder = match self.max_events {
            Some(max_events) => builder.max_log_events(max_events),
            None => builder,
        };
        builder
            .heartbeat(self.heartbeat)
            .stale_after(self.stale)
            .sweep_every(self.sweep)
            .recovery_window(self.recovery_window)
            .lifetime(self.lifetime)
            .drain_limit(self.drain)
            .durability(self.durability)
            .on_unavailable(self.on_unavailable)
    }
}

fn not_empty(name: &str, value: String) -> Result<String, String> {
    if value.is_empty() { Err(format!("`{name}` must not be empty")) } else { Ok(value) }
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    // The limit of a year is more than any use needs, and small enough that no clock overflows.
    let seconds = value.parse().ok().filter(|seconds| (0.0..=31_536_000.0).contains(seconds));
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| format!("`{name}` is a number of seconds from 0 to 31536000; `{value}` is not"))
}

fn count(name: &str, value: &str) -> Result<usize, String> {
    let count = value.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("`{name}` is a number, 1 or more; `{value}` is not"))
}

fn one_of<T: Copy>(name: &str, value: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        format!("`{name}` is one of {}; `{value}` is not", words.join(", "))
    })
}
