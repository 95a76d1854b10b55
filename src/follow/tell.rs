//! Reports gaps and restarts to a client.

use crate::{
    model::error::BodyError,
    node::Node,
    protocol::replay::Step,
    route::speaker::{Notice, Speaker},
    telemetry::add,
};

/// Reports a gap and a restart to the client.
///
/// # Errors
///
/// [`BodyError`] if the voice cannot express the gap or the restart. The body must break then.
pub(crate) fn tell_step(node: &Node, speaker: &mut Speaker, step: Step, epoch: u64) -> Result<(), BodyError> {
    if let Some(gap) = step.gap {
        add(&node.telemetry.gaps, 1);
        if !speaker.notice(&Notice::Gap(gap)) {
            return Err(BodyError::Gap);
        }
    }
    if step.restart && !speaker.notice(&Notice::Restart(epoch)) {
        return Err(BodyError::Restart);
    }
    Ok(())
}
