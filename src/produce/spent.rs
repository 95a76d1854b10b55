//! The order in which a poll frees what it has read from the inner body.

use std::cell::Cell;

use bytes::Bytes;

use crate::runtime::panics::drop_guarded;

/// One chunk in so many is kept.
const EVERY: usize = 8;

/// Longer chunks are not kept: an allocator's cache for a thread holds small blocks only.
const LONGEST: usize = 16 << 10;

thread_local! {
    /// The room for kept chunks. All bodies of a thread share it, so that a silent body holds no memory.
    static ROOM: Cell<Vec<Bytes>> = Cell::default();
}

/// Some of the chunks that a poll has read, kept until the poll ends.
///
/// Allocators give a thread the block that it freed last. If a poll freed each chunk before the inner body makes the
/// next one, a few blocks would serve all events of the thread. If these came from the arena of another thread, every
/// event would wait for that arena's lock: glibc's `realloc` always takes it. So some chunks are kept, which brings
/// other blocks into use, and the newest are freed first, which sends the oldest back to their arenas. The page on the
/// architecture has the figures.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    chunks: Vec<Bytes>,
    read: usize,
}

impl Spent {
    /// Notes that a chunk was read.
    pub(crate) fn note(&mut self, chunk: &Bytes) {
        self.read += 1;
        if self.read.is_multiple_of(EVERY) && chunk.len() <= LONGEST {
            self.keep(chunk.clone());
        }
    }

    #[cold]
    fn keep(&mut self, chunk: Bytes) {
        if self.chunks.capacity() == 0 {
            // A body that the inner body polls meanwhile finds no room, and makes its own.
            self.chunks = ROOM.take();
        }
        self.chunks.push(chunk);
    }

    #[cold]
    fn free(&mut self) {
        while let Some(newest) = self.chunks.pop() {
            drop_guarded(newest);
        }
        ROOM.set(std::mem::take(&mut self.chunks));
    }
}

impl Drop for Spent {
    #[inline]
    fn drop(&mut self) {
        if self.chunks.capacity() > 0 {
            self.free();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A chunk that notes its number when it is freed.
    struct Chunk(usize, Arc<Mutex<Vec<usize>>>);

    impl AsRef<[u8]> for Chunk {
        fn as_ref(&self) -> &[u8] {
            b"data: x\n\n"
        }
    }

    impl Drop for Chunk {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[test]
    fn a_poll_frees_the_newest_chunk_first() {
        let freed = Arc::<Mutex<Vec<usize>>>::default();
        let mut spent = Spent::default();
        for number in 1..=EVERY * 3 {
            spent.note(&Bytes::from_owner(Chunk(number, Arc::clone(&freed))));
        }
        assert!(freed.lock().unwrap().iter().all(|number| number % EVERY != 0));
        freed.lock().unwrap().clear();
        drop(spent);
        assert_eq!(*freed.lock().unwrap(), [EVERY * 3, EVERY * 2, EVERY]);
    }

    #[test]
    fn a_long_chunk_is_not_kept() {
        let mut spent = Spent::default();
        (0..EVERY).for_each(|_| spent.note(&Bytes::from_static(&[b' '; LONGEST + 1])));
        assert!(spent.chunks.is_empty());
    }

    #[test]
    fn polls_of_a_thread_share_the_room_one_after_the_other() {
        let noted = || {
            let mut spent = Spent::default();
            (0..EVERY).for_each(|_| spent.note(&Bytes::from_static(b"data: x\n\n")));
            spent
        };
        let room = noted().chunks.as_ptr();
        let outer = noted();
        assert_eq!(outer.chunks.as_ptr(), room);
        // As if the inner body had polled another body.
        assert_ne!(noted().chunks.as_ptr(), room);
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
        let freed = Arc::<Mutex<Vec<usize>>>::default();
        let mut spent = Spent::default();
        spent.keep(Bytes::from_owner(Chunk(1, Arc::clone(&freed))));
        spent.keep(Bytes::from_owner(Panics));
        drop(spent);
        assert_eq!(*freed.lock().unwrap(), [1]);
    }
}
