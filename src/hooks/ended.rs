//! The argument of the `on_end` hook.

use std::{fmt, sync::Arc};

use crate::{
    model::{
        error::StoreError,
        id::StreamKey,
        metadata::Metadata,
        stream::{Ended, Record, RecordKind, StreamInfo},
        turn::Turn,
    },
    protocol::replay::Missing,
    store::{Read, ReadFrom, StoreHandle},
    wire::{Framing, frame},
};

/// A stream that has ended, which the `on_end` hook receives.
#[derive(Clone)]
pub struct EndedStream {
    pub(crate) info: StreamInfo,
    pub(crate) ended: Ended,
    pub(crate) store: StoreHandle,
    pub(crate) framing: Arc<dyn Framing>,
}

impl EndedStream {
    /// Returns the stream's owner and id.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        &self.info.key
    }

    /// Returns the kind of stream.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.info.kind
    }

    /// Returns the conversation that the stream was a turn of, if any.
    #[must_use]
    pub fn turn(&self) -> Option<&Turn> {
        self.info.turn.as_ref()
    }

    /// Returns the ending of the stream.
    #[must_use]
    pub fn ended(&self) -> &Ended {
        &self.ended
    }

    /// Returns the metadata that the host kept with the stream.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.info.metadata
    }

    /// Returns the terminal event's data; `None` if the library supplied the ending.
    #[must_use]
    pub fn terminal_data(&self) -> Option<String> {
        let block = self.ended.ending.event.as_ref()?;
        Some(self.framing.view(block).data.into_owned())
    }

    /// Returns the data of every event in the log, oldest first, without the terminal event.
    ///
    /// The log may lack events: [`missing`](Self::missing) returns how many.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails or does not answer in time.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: this method only reads.
    pub async fn events(&self) -> Result<Vec<String>, StoreError> {
        let mut events = Vec::new();
        self.read(|record| {
            if let RecordKind::Events(frame) = &record.kind {
                let data = |event| self.framing.view(event).data.into_owned();
                events.extend(frame::events(&*self.framing, frame).map(data));
            }
        })
        .await?;
        Ok(events)
    }

    /// Returns how many of the stream's events [`events`](Self::events) lacks, because they were trimmed from the log,
    /// not recorded in an outage, or lost with a store.
    ///
    /// `Some(0)` means that the log has no hole. `None` means that an unknown number of events is missing. The last events
    /// of a node that was killed are not counted if it had not stored them yet. While the store answers, readers have
    /// seen none of them with [`Durability::BeforeSend`](crate::Durability::BeforeSend), and those of the last 100 ms
    /// with `Buffered`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store fails or does not answer in time.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: this method only reads.
    pub async fn missing(&self) -> Result<Option<u64>, StoreError> {
        let mut missing = Missing::of_stream(self.info.previous);
        self.read(|record| missing.take(record)).await?;
        Ok(missing.count())
    }

    /// Reads the whole log, page by page.
    async fn read(&self, mut each: impl FnMut(&Record)) -> Result<(), StoreError> {
        let mut from = ReadFrom::Start;
        loop {
            let read = Read { key: self.info.key.clone(), from, max_events: 1000, max_bytes: 1 << 20 };
            let Some(page) = self.store.read(read).await? else { return Ok(()) };
            for record in &page.records {
                from = ReadFrom::After(record.id);
                each(record);
            }
            if !page.more {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for EndedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedStream").field("info", &self.info).finish_non_exhaustive()
    }
}
