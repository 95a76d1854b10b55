//! The ticker of all response bodies, for heartbeats and for clients that stop reading.
//!
//! A body has no timer of its own. It notes when it becomes silent. The guardian walks over all bodies and wakes those
//! whose heartbeat is due. A walk over 100,000 bodies takes about a millisecond.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use crate::runtime::sync::{WakerCell, lock};

/// The `silent_since` of a body that is not silent, so that no heartbeat is due.
const BUSY: u64 = u64::MAX;

/// The handler of a client that stops reading.
pub(crate) trait Stall: Send + Sync {
    /// Handles a client that has not polled its body for the stall limit after it received data.
    fn stalled(self: Arc<Self>);
}

/// The ticker's list of all bodies of a process.
#[derive(Debug)]
pub(crate) struct Pulses {
    start: Instant,
    /// The shortest heartbeat interval of any body so far, in milliseconds.
    shortest: AtomicU64,
    stall: Duration,
    pulses: Mutex<Vec<Arc<State>>>,
}

struct State {
    /// The index in the list.
    index: AtomicUsize,
    waker: Arc<WakerCell>,
    /// The silence after which a heartbeat is due, in milliseconds.
    heartbeat: u64,
    /// When the body became silent, in milliseconds since the start; [`BUSY`] while it is not.
    silent_since: AtomicU64,
    heartbeat_due: AtomicBool,
    /// How often the body was polled.
    polls: AtomicU32,
    /// Whether the last poll returned data.
    handed: AtomicBool,
    /// The number of polls at which the ticker first saw that the last poll had returned data, and the time of that.
    seen: Mutex<(u32, u64)>,
    stall: Option<Arc<dyn Stall>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulse").field("silent_since", &self.silent_since).finish_non_exhaustive()
    }
}

/// A body's entry in the ticker's list. Dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct Pulse {
    all: Arc<Pulses>,
    state: Arc<State>,
}

impl Pulses {
    pub(crate) fn new(heartbeat: Duration, stall: Duration) -> Self {
        Self { start: Instant::now(), shortest: AtomicU64::new(millis(heartbeat)), stall, pulses: Mutex::default() }
    }

    /// Adds a body, which sends a heartbeat after this much silence. `stall` is called when its client stops reading.
    pub(crate) fn enter(
        self: &Arc<Self>,
        waker: Arc<WakerCell>,
        heartbeat: Duration,
        stall: Option<Arc<dyn Stall>>,
    ) -> Pulse {
        let heartbeat = millis(heartbeat);
        self.shortest.fetch_min(heartbeat, Ordering::Relaxed);
        let mut pulses = lock(&self.pulses);
        let state = Arc::new(State {
            index: AtomicUsize::new(pulses.len()),
            waker,
            heartbeat,
            silent_since: AtomicU64::new(BUSY),
            heartbeat_due: AtomicBool::new(false),
            polls: AtomicU32::new(0),
            handed: AtomicBool::new(false),
            seen: Mutex::new((0, BUSY)),
            stall,
        });
        pulses.push(Arc::clone(&state));
        Pulse { all: Arc::clone(self), state }
    }

    /// Wakes all bodies.
    pub(crate) fn wake_all(&self) {
        let pulses: Vec<_> = lock(&self.pulses).clone();
        for pulse in pulses {
            pulse.waker.wake();
        }
    }

    /// Wakes the bodies whose heartbeat is due, and reports clients that have stopped reading. Returns when to call
    /// this again.
    ///
    /// Complexity: O(bodies), about 10 ns each.
    pub(crate) fn tick(&self) -> Instant {
        let now = self.now();
        let mut next = now + self.resolution();
        let (mut due, mut stalled) = (Vec::new(), Vec::new());
        for pulse in &*lock(&self.pulses) {
            let since = pulse.silent_since.load(Ordering::Relaxed);
            if since != BUSY {
                let at = since.saturating_add(pulse.heartbeat);
                if at > now {
                    next = next.min(at);
                } else {
                    pulse.silent_since.store(now, Ordering::Relaxed);
                    pulse.heartbeat_due.store(true, Ordering::Release);
                    due.push(Arc::clone(&pulse.waker));
                }
            }
            if pulse.stall.is_some() && pulse.is_stalled(now, millis(self.stall)) {
                stalled.extend(pulse.stall.clone());
            }
        }
        for waker in due {
            waker.wake();
        }
        for stall in stalled {
            stall.stalled();
        }
        self.start + Duration::from_millis(next)
    }

    /// Returns the longest pause between two walks, which is how late a stalled client may be noticed.
    fn resolution(&self) -> u64 {
        let shortest = self.shortest.load(Ordering::Relaxed);
        (shortest / 4).min(millis(self.stall) / 8).clamp(1, 1000)
    }

    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(BUSY - 1)
}

impl State {
    /// Whether the client received data and has not polled again for the limit.
    fn is_stalled(&self, now: u64, limit: u64) -> bool {
        let mut seen = lock(&self.seen);
        let polls = self.polls.load(Ordering::Relaxed);
        if !self.handed.load(Ordering::Relaxed) || seen.0 != polls || seen.1 == BUSY {
            *seen = (polls, now);
            return false;
        }
        if now - seen.1 < limit {
            return false;
        }
        *seen = (polls, now);
        true
    }
}

impl Pulse {
    /// Notes that the client polls the body.
    pub(crate) fn polled(&self) {
        // Only this body writes the counter, so no atomic addition is needed.
        self.state.polls.store(self.state.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.state.handed.store(false, Ordering::Relaxed);
    }

    /// Notes that the client receives an event.
    pub(crate) fn delivered(&self) {
        self.state.silent_since.store(BUSY, Ordering::Relaxed);
        self.state.handed.store(true, Ordering::Relaxed);
    }

    /// Notes that the client receives a heartbeat.
    pub(crate) fn beat(&self) {
        self.state.handed.store(true, Ordering::Relaxed);
    }

    /// Registers the waker of the body. A due heartbeat wakes it, and so does all that wakes the cell which the pulse was given: a
    /// live body gives its lane's, so acknowledgements, halts, takeovers and drains wake the body too.
    pub(crate) fn register(&self, waker: &Waker) {
        self.state.waker.register(waker);
    }

    /// Notes that the body has no data, and registers the waker. Returns whether a heartbeat is due.
    pub(crate) fn silent(&self, waker: &Waker) -> bool {
        self.register(waker);
        if self.state.silent_since.load(Ordering::Relaxed) == BUSY {
            self.state.silent_since.store(self.all.now(), Ordering::Relaxed);
        }
        self.state.heartbeat_due.swap(false, Ordering::Acquire)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let mut pulses = lock(&self.all.pulses);
        let index = self.state.index.load(Ordering::Relaxed);
        pulses.swap_remove(index);
        if let Some(moved) = pulses.get(index) {
            moved.index.store(index, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_test::task;

    const HEARTBEAT: Duration = Duration::from_secs(15);

    fn body(pulses: &Arc<Pulses>) -> Pulse {
        pulses.enter(Arc::default(), HEARTBEAT, None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_due_after_the_interval_of_silence() {
        let pulses = Arc::new(Pulses::new(HEARTBEAT, Duration::from_secs(10)));
        let pulse = body(&pulses);
        let mut task = task::spawn(());
        let mut silent = || task.enter(|cx, _| pulse.silent(cx.waker()));
        assert!(!silent());
        for _ in 0..3 {
            let start = Instant::now();
            loop {
                let next = pulses.tick();
                if silent() {
                    break;
                }
                tokio::time::sleep_until(next).await;
            }
            let late = start.elapsed().checked_sub(HEARTBEAT).expect("not before");
            // The timers of the runtime have a resolution of a millisecond.
            assert!(late <= Duration::from_millis(2), "{late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn speech_starts_the_silence_over() {
        let pulses = Arc::new(Pulses::new(HEARTBEAT, Duration::from_secs(10)));
        let pulse = body(&pulses);
        let mut task = task::spawn(());
        task.enter(|cx, _| assert!(!pulse.silent(cx.waker())));
        tokio::time::advance(HEARTBEAT - Duration::from_secs(1)).await;
        pulse.delivered();
        tokio::time::advance(HEARTBEAT).await;
        pulses.tick();
        task.enter(|cx, _| assert!(!pulse.silent(cx.waker())));
        tokio::time::advance(HEARTBEAT).await;
        pulses.tick();
        assert!(task.is_woken());
        task.enter(|cx, _| assert!(pulse.silent(cx.waker())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_come_back_is_stalled_once_per_limit() {
        struct Count(AtomicU32);
        impl Stall for Count {
            fn stalled(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicU32::new(0)));
        let pulses = Arc::new(Pulses::new(HEARTBEAT, Duration::from_secs(10)));
        let pulse = pulses.enter(Arc::default(), HEARTBEAT, Some(count.clone()));
        for _ in 0..20 {
            pulse.polled();
            pulse.delivered();
            tokio::time::advance(Duration::from_secs(1)).await;
            pulses.tick();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "it reads");
        for _ in 0..11 {
            tokio::time::advance(Duration::from_secs(1)).await;
            pulses.tick();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn bodies_come_and_go_in_any_order() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let _guard = runtime.enter();
        let pulses = Arc::new(Pulses::new(HEARTBEAT, HEARTBEAT));
        let mut bodies: Vec<_> = (0..5).map(|_| body(&pulses)).collect();
        bodies.remove(1);
        bodies.remove(0);
        bodies.push(body(&pulses));
        for (index, state) in lock(&pulses.pulses).iter().enumerate() {
            assert_eq!(state.index.load(Ordering::Relaxed), index);
        }
        bodies.clear();
        assert!(lock(&pulses.pulses).is_empty());
    }
}
