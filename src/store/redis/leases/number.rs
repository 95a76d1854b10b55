//! The numbers of leases.

use super::super::clock::LONGEST;
use crate::runtime::random;

/// Scores from here on are leases, up to twice that: no deadline is so far away, and all of them are exact in a score.
pub(in super::super) const LOWEST: u64 = 1 << 52;
/// Where in a lease's number the threshold stands that it was made with.
const THRESHOLD: u32 = 46;

/// Makes the number of a lease: by chance, so that no two nodes ever have the same. It is odd: the even number below it is
/// the same lease, of a stream that is marked (see mark.lua). It tells, as a power of two that is no less, for how many
/// milliseconds a beat renews it: a sweep that finds streams under a lease which the index has lost gives it that long.
pub(super) fn number(stale: u64, random: u64) -> u64 {
    let power = u64::from(64 - stale.clamp(1, LONGEST).saturating_sub(1).leading_zeros());
    LOWEST | power << THRESHOLD | (random & ((1 << THRESHOLD) - 1)) | 1
}

/// Whether this is the number of a lease.
pub(in super::super) fn is_one(lease: u64) -> bool {
    (LOWEST..2 * LOWEST).contains(&lease) && lease % 2 == 1
}

/// For how many milliseconds a beat renews a lease, at most twice too much.
pub(in super::super) fn renewed_for(lease: u64) -> u64 {
    1 << ((lease >> THRESHOLD) & 63).min(46)
}

/// Somewhere among all leases: where a sweep begins to look for lost ones.
pub(in super::super) fn anywhere() -> u64 {
    LOWEST | (random::u128() as u64 & (LOWEST - 1))
}

/// The scores of streams under a lease, marked ones included.
pub(in super::super) fn scores(lease: u64) -> [u64; 2] {
    [lease - 1, lease]
}
