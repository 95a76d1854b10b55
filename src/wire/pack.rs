//! Blocks that are kept, in memory of their own.

use std::ops::Range;

use bytes::Bytes;

/// Copies blocks that are kept together into one allocation, of exactly their size.
///
/// A block as the scanner finds it is a slice, and holds on to the whole chunk that it is a slice of. Where most of that is no
/// event, a log would pin many times the bytes that it counts.
pub(crate) fn pack(blocks: &mut [Bytes]) {
    let mut packed = Vec::with_capacity(blocks.iter().map(Bytes::len).sum());
    for block in &*blocks {
        packed.extend_from_slice(block);
    }
    let packed = Bytes::from(packed);
    let mut at = 0;
    for block in blocks {
        let place: Range<usize> = at..at + block.len();
        at = place.end;
        *block = packed.slice(place);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packing_changes_no_content(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..70)) {
            let mut packed: Vec<Bytes> = blocks.iter().cloned().map(Bytes::from).collect();
            pack(&mut packed);
            prop_assert_eq!(&packed, &blocks);
        }
    }

    #[test]
    fn what_the_blocks_were_slices_of_is_let_go() {
        let chunk = Bytes::from(vec![b'x'; 64 << 10]);
        let mut blocks = [chunk.slice(7..9), chunk.slice(70..79)];
        assert!(!chunk.is_unique());
        pack(&mut blocks);
        assert!(chunk.is_unique());
        assert_eq!(blocks, [&b"xx"[..], &b"xxxxxxxxx"[..]]);
    }
}
