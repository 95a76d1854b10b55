//! The Lua scripts. Each script states its contract at its top.

use std::sync::LazyLock;

use redis::{Cmd, cmd};

/// A script, and the hash by which it is called.
pub(super) struct Script {
    source: LazyLock<redis::Script>,
    text: fn() -> String,
}

/// The flags of a script that frees memory or whose writes must not fail. It also runs on a server whose memory is
/// full.
const SETTLES: &str = "#!lua flags=allow-oom";
/// The flags of a script that adds data. A server whose memory is full refuses it before its first write, not halfway.
const GROWS: &str = "#!lua";

/// The flags of a script that only reads. It gets no prelude, since running the prelude would take longer than the
/// script.
const LOOKS: &str = "#!lua flags=no-writes";

/// The code that the scripts share. The server runs it in each call.
const BASICS: &str = include_str!("scripts/basics.lua");
const PRELUDE: &str = include_str!("scripts/prelude.lua");
/// The code that turns a script for one stream into a script for many. This saves time: starting a script takes a
/// server half as long as the work of most scripts.
const EACH: &str = include_str!("scripts/each.lua");
/// The line that a script puts where the prelude belongs, if not every call needs the prelude.
const INCLUDE: &str = "-- include prelude.lua\n";

fn assembled(flags: &str, own: &str) -> String {
    match own.split_once(INCLUDE) {
        _ if flags == LOOKS => format!("{flags}\n{own}"),
        Some((before, after)) => format!("{flags}\n{BASICS}\n{before}{PRELUDE}\n{after}"),
        None => format!("{flags}\n{BASICS}\n{PRELUDE}\n{own}"),
    }
}

fn assembled_for_many(flags: &str, one: &str) -> String {
    let one = one.replace(INCLUDE, "");
    format!("{flags}\n{BASICS}\n{PRELUDE}\nlocal function one(KEYS, ARGV)\n{one}\nend\n\n{EACH}")
}

macro_rules! scripts {
    ($($name:ident: $flags:ident $file:literal,)* ; $($each:ident: $each_flags:ident $each_file:literal,)*) => {
        $(pub(super) static $name: Script = {
            fn text() -> String {
                assembled($flags, include_str!(concat!("scripts/", $file)))
            }
            Script { source: LazyLock::new(|| redis::Script::new(&text())), text }
        };)*

        $(pub(super) static $each: Script = {
            fn text() -> String {
                assembled_for_many($each_flags, include_str!(concat!("scripts/", $each_file)))
            }
            Script { source: LazyLock::new(|| redis::Script::new(&text())), text }
        };)*

        #[cfg(test)]
        static ALL: &[(&str, &Script)] = &[$(($file, &$name),)* $(($each_file, &$each),)*];
    };
}

scripts! {
    OPEN: GROWS "open.lua",
    WITHDRAW: SETTLES "withdraw.lua",
    APPEND: GROWS "append.lua",
    TRIM: SETTLES "trim.lua",
    PEEK: SETTLES "peek.lua",
    CLOSE: SETTLES "close.lua",
    INTERRUPT: SETTLES "interrupt.lua",
    REOPEN: GROWS "reopen.lua",
    SEND: GROWS "send.lua",
    DELETE: SETTLES "delete.lua",
    CLAIM: SETTLES "claim.lua",
    VOUCH: SETTLES "vouch.lua",
    DEADLINE: LOOKS "deadline.lua",
    RENEW: SETTLES "renew.lua",
    HOOKED: SETTLES "hooked.lua",
    WATCH: SETTLES "watch.lua",
    UNWATCH: SETTLES "unwatch.lua",
    MARK: SETTLES "mark.lua",
    STANDING: SETTLES "standing.lua",
    OWN: SETTLES "own.lua",
    ANNOUNCE: SETTLES "announce.lua",
    POINTER: SETTLES "pointer.lua",
    NEWEST: LOOKS "newest.lua",
    // For many streams.
    ;
    CLOSE_EACH: SETTLES "close.lua",
    LEASED_EACH: SETTLES "leased.lua",
}

impl Script {
    /// Returns a call with these keys. The caller adds the arguments.
    pub(super) fn call(&'static self, keys: &[&str]) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(self.source.get_hash()).arg(keys.len()).arg(keys);
        call
    }

    /// Returns the same call with the text of the script. A server that restarted or was promoted does not know the
    /// hash.
    pub(super) fn spelled_out(&self, call: &Cmd) -> Cmd {
        let mut whole = cmd("EVAL");
        whole.arg((self.text)());
        for argument in call.args_iter().skip(2) {
            if let redis::Arg::Simple(argument) = argument {
                whole.arg(argument);
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_states_its_contract() {
        for (file, script) in ALL {
            let text = (script.text)();
            let own = text.rsplit("\n-- ").last();
            assert!(text.starts_with("#!lua"), "{file}");
            assert!(own.is_some() && text.contains("KEYS"), "{file}");
            assert!(text.contains(&format!("\n-- {}: ", file.trim_end_matches(".lua"))), "{file} names itself");
            assert!(text.contains("O("), "{file} says what it costs");
        }
    }

    #[test]
    fn a_call_is_spelled_out_with_the_same_arguments() {
        let mut call = TRIM.call(&["a", "b"]);
        call.arg(7);
        let whole = TRIM.spelled_out(&call);
        let tail: Vec<_> = whole
            .args_iter()
            .skip(2)
            .map(|arg| match arg {
                redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                redis::Arg::Cursor => "cursor".to_owned(),
                _ => "other".to_owned(),
            })
            .collect();
        assert_eq!(tail, ["2", "a", "b", "7"]);
    }
}
