//! How a gap and a restart are told.

use crate::{
    model::error::BodyError,
    node::Node,
    protocol::replay::Step,
    route::speaker::{Notice, Speaker},
    telemetry::add,
};

/// Tells of a gap and a restart.
///
/// # Errors
///
/// [`BodyError`] where the voice cannot express it: the body breaks there.
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
