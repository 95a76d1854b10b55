//! An event that a host makes.

use serde::Serialize;

/// An event of the host's own making: for publishers, job results and tests.
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
    /// An event with this data.
    #[must_use]
    pub fn new(data: impl Into<String>) -> Self {
        Self { name: None, data: data.into(), id: None }
    }

    /// An event whose data is this value as JSON.
    ///
    /// # Errors
    ///
    /// Those of the value's own serialization.
    pub fn json(data: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_string(data).map(Self::new)
    }

    /// Gives it a name; without one it is a `message`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives it an id of the host's own.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its data.
    #[must_use]
    pub fn data(&self) -> &str {
        &self.data
    }

    /// The host's own id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}
