//! G1: exactly the events after the cursor, or an explicit gap.

mod cursors;
mod emptied;
mod nodes;
mod policies;
mod recovery;
mod resume;
mod runs;
mod sent_cursors;
