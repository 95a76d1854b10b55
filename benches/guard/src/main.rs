//! Counts the instructions and allocations of the hot paths, and compares them with `base.txt`.
//!
//! callgrind counts the instructions, this process its allocations. Neither depends on the load of the machine, so a
//! change of a few per cent is significant. A timed test would need tens of per cent.
//!
//! Without an argument the program compares. `--renew` writes the current counts into `base.txt`. `count NAME` runs one
//! path; the program starts itself that way under callgrind.

mod paths;

use std::{
    collections::BTreeMap,
    env, fs,
    process::{Command, ExitCode},
};

use allocation_counter::measure;
use paths::{ALL, Path, TIMES};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/base.txt");
/// The share by which a count may exceed its base.
const MARGIN: f64 = 0.03;
/// The function in which callgrind counts. It also counts in the functions that this one calls.
const COUNTED: &str = "resilient_sse_guard::counted*";

/// The cost of running a path [`TIMES`] times.
#[derive(Clone, Copy)]
struct Counts {
    instructions: u64,
    allocations: u64,
    bytes: u64,
}

impl Counts {
    fn named(self) -> [(&'static str, u64); 3] {
        [("instructions", self.instructions), ("allocations", self.allocations), ("bytes allocated", self.bytes)]
    }
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["count", name] => run(name),
        ["--renew"] => renew(),
        [] => compare(),
        _ => Err("the only option is `--renew`".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a path within the function [`COUNTED`].
fn run(name: &str) -> Result<bool> {
    let path = ALL.iter().find(|path| path.name == name).ok_or("no such path")?;
    counted(&mut path.prepare());
    Ok(true)
}

#[inline(never)]
fn counted(go: &mut dyn FnMut()) {
    go();
}

fn count(path: &Path) -> Result<Counts> {
    let mut go = path.prepare();
    let allocated = measure(&mut go);
    Ok(Counts {
        instructions: instructions(path.name)?,
        allocations: allocated.count_total,
        bytes: allocated.bytes_total,
    })
}

/// Returns the number of instructions that callgrind counts. Its output file stays for `callgrind_annotate`.
fn instructions(name: &str) -> Result<u64> {
    let own = env::current_exe()?;
    let details = own.with_file_name(format!("callgrind.{name}.out"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}")])
        .arg(format!("--callgrind-out-file={}", details.display()))
        .arg(own)
        .args(["count", name])
        .output()
        .map_err(|error| format!("valgrind: {error} (apt-get install -y valgrind)"))?;
    let report = String::from_utf8_lossy(&output.stderr);
    let collected = report.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match collected {
        Some(0) | None => Err(format!("callgrind counted nothing:\n{report}").into()),
        Some(counted) if output.status.success() => Ok(counted),
        Some(_) => Err(report.into_owned().into()),
    }
}

/// Reads `base.txt`. Returns the compiler that built the paths, and the counts of each path.
fn base() -> Result<(String, BTreeMap<String, Counts>)> {
    let text = fs::read_to_string(BASE)?;
    let compiler = text.lines().find_map(|line| line.strip_prefix("# rustc ")).unwrap_or_default().to_owned();
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [name, instructions, allocations, bytes] = words[..] else { return Err(format!("{BASE}: {line}").into()) };
        let counts =
            Counts { instructions: instructions.parse()?, allocations: allocations.parse()?, bytes: bytes.parse()? };
        all.insert(name.to_owned(), counts);
    }
    Ok((compiler, all))
}

fn compiler() -> Result<String> {
    let version = String::from_utf8(Command::new("rustc").arg("--version").output()?.stdout)?;
    Ok(version.trim().trim_start_matches("rustc ").to_owned())
}

fn compare() -> Result<bool> {
    let (of_base, base) = base()?;
    let mut holds = true;
    for path in ALL {
        let own = count(path)?;
        let base = base.get(path.name).ok_or_else(|| format!("{BASE} has no `{}`: .ci/guard --renew", path.name))?;
        println!("{}: {}", path.name, path.unit);
        for ((what, own), (_, base)) in own.named().into_iter().zip(base.named()) {
            let change = if own == base { 0.0 } else { own as f64 / base.max(1) as f64 - 1.0 };
            let verdict = match change {
                change if change > MARGIN => "TOO MANY",
                change if change < -MARGIN => "fewer: renew the base",
                _ => "",
            };
            holds &= change <= MARGIN;
            let each = own as f64 / TIMES as f64;
            println!("  {what:<16} {each:>10.1} each, {:>+6.1} % {verdict}", change * 100.0);
        }
    }
    if !holds {
        eprintln!(
            "A count exceeds benches/guard/base.txt by more than 3 %. `callgrind_annotate target/guard/release/callgrind.NAME.out` shows where.\n\
             If the increase is intended, or the compiler has changed (base: `{of_base}`, now: `{}`), run `.ci/guard --renew` and commit the new base with the reason.",
            compiler()?
        );
    }
    Ok(holds)
}

fn renew() -> Result<bool> {
    let mut text = format!(
        "# The cost of {TIMES} units of each hot path: instructions, allocations, bytes allocated. Written by `.ci/guard --renew`.\n# rustc {}\n",
        compiler()?
    );
    for path in ALL {
        let Counts { instructions, allocations, bytes } = count(path)?;
        text += &format!("{:<10} {instructions:>9} {allocations:>6} {bytes:>9}\n", path.name);
    }
    fs::write(BASE, &text)?;
    print!("{text}");
    Ok(true)
}
