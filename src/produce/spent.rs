//! Some chunks of the inner body are freed later than others, which spares threads of glibc a wait for each other.

use bytes::Bytes;

use crate::runtime::panics::drop_guarded;

/// One chunk in so many is kept. In a batch of 64 chunks this keeps more than the seven blocks of a size that glibc's
/// cache holds.
const EVERY: usize = 6;

/// How many chunks are kept at most.
const KEPT: usize = 10;

/// Longer chunks are not kept, so that a batch keeps 160 KiB at most beside the chunk that is being read.
const LONGEST: usize = 16 << 10;

/// Some of the chunks that a batch has read, kept until the batch ends.
///
/// glibc gives a thread the block that it freed last. If each chunk were freed at once, the next ones would be made in
/// the same few blocks for ever. If another thread's arena owns these blocks, every `realloc` of one waits for that
/// arena's lock, as long as the other thread uses it too. So a batch keeps some chunks, and the inner body gets other
/// blocks meanwhile. The newest are freed first and fill the thread's cache. The oldest go back to their arenas.
///
/// A batch of fewer chunks than six keeps none. A chunk that is a slice of a larger buffer keeps that buffer.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    kept: Vec<Bytes>,
    read: usize,
}

impl Spent {
    /// Notes that a chunk was read.
    #[inline]
    pub(crate) fn note(&mut self, chunk: &Bytes) {
        self.read += 1;
        if self.read.is_multiple_of(EVERY) && chunk.len() <= LONGEST {
            self.keep(chunk);
        }
    }

    #[cold]
    fn keep(&mut self, chunk: &Bytes) {
        if self.kept.is_empty() {
            self.kept.reserve_exact(KEPT);
        }
        if self.kept.len() < KEPT {
            self.kept.push(chunk.clone());
        }
    }

    #[cold]
    fn free(&mut self) {
        while let Some(newest) = self.kept.pop() {
            drop_guarded(newest);
        }
    }
}

impl Drop for Spent {
    #[inline]
    fn drop(&mut self) {
        if !self.kept.is_empty() {
            self.free();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The numbers of the chunks that were freed.
    type Freed = Arc<Mutex<Vec<usize>>>;

    /// A chunk that notes its number when it is freed.
    struct Chunk(usize, Vec<u8>, Freed);

    impl AsRef<[u8]> for Chunk {
        fn as_ref(&self) -> &[u8] {
            &self.1
        }
    }

    impl Drop for Chunk {
        fn drop(&mut self) {
            self.2.lock().unwrap().push(self.0);
        }
    }

    /// Reads chunks of this length. Returns the numbers of those that were freed at once.
    fn read(spent: &mut Spent, chunks: usize, length: usize, freed: &Freed) -> Vec<usize> {
        (1..=chunks)
            .for_each(|number| spent.note(&Bytes::from_owner(Chunk(number, vec![b' '; length], Arc::clone(freed)))));
        std::mem::take(&mut *freed.lock().unwrap())
    }

    #[test]
    fn every_sixth_chunk_is_kept_and_the_newest_is_freed_first() {
        let (freed, mut spent) = (Freed::default(), Spent::default());
        assert_eq!(read(&mut spent, 20, LONGEST, &freed), [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 19, 20]);
        drop(spent);
        assert_eq!(*freed.lock().unwrap(), [18, 12, 6]);
    }

    #[test]
    fn at_most_ten_chunks_are_kept() {
        let (freed, mut spent) = (Freed::default(), Spent::default());
        assert_eq!(read(&mut spent, 200, 1, &freed).len(), 190);
        drop(spent);
        assert_eq!(*freed.lock().unwrap(), [60, 54, 48, 42, 36, 30, 24, 18, 12, 6]);
    }

    #[test]
    fn a_long_chunk_is_not_kept() {
        let (freed, mut spent) = (Freed::default(), Spent::default());
        assert_eq!(read(&mut spent, 6, LONGEST + 1, &freed).len(), 6);
    }

    #[test]
    fn a_destructor_that_panics_keeps_no_other_chunk_alive() {
        struct Panics;
        impl AsRef<[u8]> for Panics {
            fn as_ref(&self) -> &[u8] {
                b""
            }
        }
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("a destructor of the host");
            }
        }
        let (freed, mut spent) = (Freed::default(), Spent::default());
        read(&mut spent, 6, 1, &freed);
        spent.read = 11;
        spent.note(&Bytes::from_owner(Panics));
        drop(spent);
        assert_eq!(*freed.lock().unwrap(), [6]);
    }
}
