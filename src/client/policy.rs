//! Decides whether and when to try again, without any I/O.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::retry_after::LONGEST_WAIT;
use crate::{node::headers::STREAM_HEARTBEAT, protocol::backoff};

/// After how many heartbeat intervals of silence a connection is dead.
const SILENT_HEARTBEATS: f64 = 2.5;

/// The bounds of the watchdog's time limit. A header with a shorter interval would cut connections that are merely
/// slow.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// What the source does with a response, by its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 200: an event stream, if its content type says so.
    Read,
    /// 204: the stream is finished, and everything was delivered.
    Done,
    /// 429 and 5xx: the server may answer later.
    Retry,
    /// Any other status: asking again would not change the answer.
    Refuse,
}

impl Verdict {
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::OK => Self::Read,
            StatusCode::NO_CONTENT => Self::Done,
            StatusCode::TOO_MANY_REQUESTS => Self::Retry,
            status if status.is_server_error() => Self::Retry,
            _ => Self::Refuse,
        }
    }
}

/// The settings that decide about attempts.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) max_attempts: u32,
    pub(super) min_delay: Duration,
    pub(super) max_delay: Duration,
    /// The heartbeat interval to assume for a response without `X-Stream-Heartbeat`.
    pub(super) heartbeat: Option<Duration>,
}

/// Counts the attempts that brought no event.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    limits: Limits,
    /// How many attempts in a row brought no event.
    failures: u32,
    /// Whether the current attempt has brought an event.
    has_event: bool,
}

impl Policy {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, failures: 0, has_event: false }
    }

    /// Returns how many attempts in a row brought no event.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Resets the count of failures.
    pub(super) fn start_over(&mut self) {
        self.failures = 0;
        self.has_event = false;
    }

    /// Records that the current attempt has brought an event, and resets the count of failures.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.has_event = true;
    }

    /// Records that an attempt is over. Returns how long to wait before the next attempt, or `None` after too many
    /// attempts without an event.
    ///
    /// `asked` is the wait that the server asked for, by `retry:` or `Retry-After`. The returned wait is never shorter
    /// than `asked`, up to [`LONGEST_WAIT`], and its upper limit is at least 1.5 times `asked`: a server may give the
    /// same number to many clients that it disconnects together, and they must not come back together. `random` is
    /// uniform.
    pub(super) fn failed(&mut self, asked: Option<Duration>, random: u64) -> Option<Duration> {
        if !std::mem::take(&mut self.has_event) {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.limits.max_attempts {
                return None;
            }
        }
        let Limits { min_delay, max_delay, .. } = self.limits;
        let shortest = min_delay.max(asked.unwrap_or_default()).min(LONGEST_WAIT);
        let longest = backoff::ceiling(min_delay, max_delay, self.failures + 1).max(shortest + shortest / 2);
        Some(backoff::between(shortest, longest, random))
    }

    /// Returns after how much silence a connection is dead, given the headers of its response. `None` if no heartbeat
    /// interval is known.
    pub(super) fn silence(&self, headers: &HeaderMap) -> Option<Duration> {
        let seconds = headers.get(STREAM_HEARTBEAT).and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
        let announced = seconds.filter(|seconds| *seconds > 0.0);
        let interval = announced.or(self.limits.heartbeat.map(|interval| interval.as_secs_f64()))?;
        // The conversion fails only for a number too large for a `Duration`, infinity included.
        let silence = Duration::try_from_secs_f64(interval * SILENT_HEARTBEATS).unwrap_or(LONGEST_SILENCE);
        Some(silence.clamp(SHORTEST_SILENCE, LONGEST_SILENCE))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::runtime::random::Seeded;

    fn policy() -> Policy {
        Policy::new(Limits {
            max_attempts: 10,
            min_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(30),
            heartbeat: None,
        })
    }

    #[test]
    fn statuses_mean_what_the_policy_says() {
        for (status, verdict) in [
            (200, Verdict::Read),
            (204, Verdict::Done),
            (201, Verdict::Refuse),
            (206, Verdict::Refuse),
            (307, Verdict::Refuse),
            (400, Verdict::Refuse),
            (401, Verdict::Refuse),
            (404, Verdict::Refuse),
            (408, Verdict::Refuse),
            (409, Verdict::Refuse),
            (422, Verdict::Refuse),
            (429, Verdict::Retry),
            (500, Verdict::Retry),
            (503, Verdict::Retry),
            (599, Verdict::Retry),
            (600, Verdict::Refuse),
        ] {
            assert_eq!(Verdict::of(StatusCode::from_u16(status).unwrap()), verdict, "{status}");
        }
    }

    #[test]
    fn it_gives_up_after_ten_attempts_without_an_event() {
        let mut policy = policy();
        let waits: Vec<_> = std::iter::from_fn(|| policy.failed(None, u64::MAX)).collect();
        assert_eq!(waits.len(), 9, "nine waits lie between ten attempts");
        assert!(waits.is_sorted());
        assert!(waits[8] > Duration::from_secs(29) && waits[8] <= Duration::from_secs(30), "{waits:?}");

        policy.start_over();
        for _ in 0..9 {
            policy.failed(None, 0).unwrap();
        }
        policy.progressed();
        assert_eq!(policy.failures(), 0);
        // The attempt that brought the event does not count as a failure when it breaks off.
        let waits = std::iter::from_fn(|| policy.failed(None, 0)).count();
        assert_eq!(waits, 10);
    }

    #[test]
    fn a_server_that_gives_one_event_each_time_is_asked_for_ever() {
        let mut policy = policy();
        for _ in 0..1000 {
            policy.progressed();
            assert!(policy.failed(None, u64::MAX).unwrap() <= Duration::from_millis(500));
        }
    }

    #[test]
    fn the_wait_is_never_shorter_than_the_server_asked_for_and_bounded() {
        for (asked, shortest, longest) in
            [(0, 250, 1000), (3_000, 3_000, 4_500), (60_000, 60_000, 90_000), (u64::MAX, 3_600_000, 5_400_000)]
        {
            let asked = Some(Duration::from_millis(asked));
            assert_eq!(policy().failed(asked, 0), Some(Duration::from_millis(shortest)));
            let wait = policy().failed(asked, u64::MAX).unwrap();
            assert!(
                wait <= Duration::from_millis(longest) && wait > Duration::from_millis(longest * 9 / 10),
                "{wait:?}"
            );
        }
    }

    /// Cuts a thousand clients at once, all with the same delay from the server.
    #[test]
    fn clients_that_are_cut_together_do_not_come_back_together() {
        let random = Seeded::new(Some(7));
        for (asked, spread) in [(None, 200), (Some(Duration::from_secs(3)), 1_200)] {
            let mut waits: Vec<_> = (0..1000)
                .map(|_| {
                    let mut policy = policy();
                    policy.progressed();
                    policy.failed(asked, random.u64()).unwrap()
                })
                .collect();
            waits.sort_unstable();
            assert!(waits[950] - waits[50] > Duration::from_millis(spread), "{:?}", waits[950] - waits[50]);
            let densest = waits.windows(100).map(|some| some[99] - some[0]).min().unwrap();
            assert!(densest > Duration::from_millis(spread / 20), "a tenth of them within {densest:?}");
        }
    }

    #[test]
    fn odd_settings_do_no_harm() {
        let limits = |min_delay, max_delay| Limits { max_attempts: u32::MAX, min_delay, max_delay, heartbeat: None };
        for (min, max) in
            [(Duration::MAX, Duration::ZERO), (Duration::ZERO, Duration::ZERO), (Duration::MAX, Duration::MAX)]
        {
            let mut policy = Policy::new(limits(min, max));
            policy.failures = u32::MAX - 2;
            for random in [0, u64::MAX] {
                let _ = policy.failed(Some(Duration::MAX), random);
            }
        }
        assert_eq!(
            Policy::new(Limits { max_attempts: 0, ..limits(Duration::ZERO, Duration::ZERO) }).failed(None, 0),
            None
        );
    }

    #[test]
    fn a_connection_is_dead_after_two_and_a_half_heartbeats() {
        let silence = |told: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(STREAM_HEARTBEAT, HeaderValue::from_static(told));
            policy().silence(&headers).map(|silence| silence.as_secs_f64())
        };
        for (told, expected) in [
            ("15", Some(37.5)),
            ("0.5", Some(1.25)),
            (" 2 ", Some(5.0)),
            ("0.0001", Some(1.0)),
            ("1e300", Some(86_400.0)),
            ("inf", Some(86_400.0)),
            ("0", None),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(silence(told), expected, "{told:?}");
        }
        let mut policy = policy();
        assert_eq!(policy.silence(&HeaderMap::new()), None);
        policy.limits.heartbeat = Some(Duration::from_secs(4));
        assert_eq!(policy.silence(&HeaderMap::new()), Some(Duration::from_secs(10)));
    }
}
