//! An event that a host creates.

use serde::Serialize;

/// An event that the host creates, for publishers, job results and tests.
///
/// ```
/// use resilient_sse::Event;
///
/// let event = Event::new("hello").named("greeting");
/// assert_eq!(event.name(), Some("greeting"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    name: Option<String>,
    data: String,
    id: Option<String>,
}

impl Event {
    /// Creates an event with this data.
    #[must_use]
    pub fn new(data: impl Into<String>) -> Self {
        Self { name: None, data: data.into(), id: None }
    }

    /// Creates an event whose data is this value as JSON.
    ///
    /// # Errors
    ///
    /// The error of serializing the value.
    pub fn json(data: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_string(data).map(Self::new)
    }

    /// Sets the event's name. Clients call an event without a name `message`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the host's own id of the event.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Returns the event's name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the event's data.
    #[must_use]
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Returns the host's own id of the event.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}
