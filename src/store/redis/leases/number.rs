//! The numbers of leases.

use super::super::clock::LONGEST;
use crate::runtime::random;

/// Scores from `LOWEST` to twice that are leases. No deadline is that late, and a score represents these numbers exactly.
pub(in super::super) const LOWEST: u64 = 1 << 52;
/// The bit of a lease's number from which on its stale threshold is encoded.
const THRESHOLD: u32 = 46;

/// Makes the number of a lease. It is random, so that no two nodes use the same.
///
/// It is odd: the even number below it stands for the same lease, of a stream that is marked (see mark.lua). It encodes the
/// stale threshold in milliseconds, rounded up to a power of two. If the index of leases has lost the lease, a sweep that
/// finds streams under it waits that long before it takes them for orphans.
pub(super) fn number(stale: u64, random: u64) -> u64 {
    let power = u64::from(64 - stale.clamp(1, LONGEST).saturating_sub(1).leading_zeros());
    LOWEST | power << THRESHOLD | (random & ((1 << THRESHOLD) - 1)) | 1
}

/// Whether this is the number of a lease.
pub(in super::super) fn is_one(lease: u64) -> bool {
    (LOWEST..2 * LOWEST).contains(&lease) && lease % 2 == 1
}

/// Returns for how many milliseconds a beat renews a lease: at most twice its stale threshold.
pub(in super::super) fn renewed_for(lease: u64) -> u64 {
    1 << ((lease >> THRESHOLD) & 63).min(46)
}

/// A random lease number, at which a sweep begins to look for lost leases.
pub(in super::super) fn anywhere() -> u64 {
    LOWEST | (random::u128() as u64 & (LOWEST - 1))
}

/// The scores of streams under a lease: of marked ones, and of the others.
pub(in super::super) fn scores(lease: u64) -> [u64; 2] {
    [lease - 1, lease]
}
