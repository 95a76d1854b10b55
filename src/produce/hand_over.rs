//! Hands the work to a task when its client has left, stalls, or is let go.

use std::sync::{Arc, atomic::Ordering};

use super::{absence::Attendance, drive::Drive, engine::Engine, inner_body::InnerBody, producer::Producer};
use crate::{
    recorder::{EndRequest, Producing},
    runtime::{pulse::Stall, sync::lock},
};

impl<B> Producer<B>
where
    B: InnerBody,
{
    /// Handles the departure of the client.
    pub(crate) fn client_gone(self: &Arc<Self>) {
        self.lane.readers.detach_client();
        let engine = lock(&self.engine).take();
        match engine {
            Some(engine) if !engine.is_over() => self.go_on_without_client(engine),
            Some(_) => {}
            None => self.lane.wake_drive(),
        }
    }

    /// Drives the body on if there is a reader or one may return. Otherwise ends the work at once.
    fn go_on_without_client(self: &Arc<Self>, mut engine: Engine<B>) {
        // No client could ever read the events of an unrecorded stream.
        if self.lane.is_unrecorded() {
            return engine.abort(EndRequest::Interrupt);
        }
        if self.may_run_unread().is_zero() && !self.node.is_read(&self.lane) {
            return engine.abort(self.end_unread());
        }
        self.drive(engine, Attendance::new(&self.node, &self.lane));
    }

    /// Drives on the body of a request that was dropped before the inner service answered.
    pub(crate) fn go_on(self: &Arc<Self>, attendance: Attendance) {
        let engine = lock(&self.engine).take();
        if let Some(engine) = engine {
            self.drive(engine, attendance);
        }
    }

    fn drive(self: &Arc<Self>, engine: Engine<B>, attendance: Attendance) {
        self.lane.set_driven();
        self.node.executor.spawn(Drive::new(Arc::clone(self), engine, attendance));
    }

    /// Takes the engine from a client that is still attached, and drives it on.
    fn take_over(self: &Arc<Self>) {
        // The client cannot follow a stream that is no longer recorded, so the work waits for the client.
        if self.lane.is_halted() || self.lane.is_unrecorded() {
            return;
        }
        let engine = {
            let mut engine = lock(&self.engine);
            if engine.as_ref().is_none_or(Engine::is_over) {
                return;
            }
            // Set under the lock, so that a client that finds no engine sees `driven`.
            self.driven.store(true, Ordering::Release);
            engine.take()
        };
        let Some(engine) = engine else { return };
        self.lane.waker.wake();
        self.drive(engine, Attendance::new(&self.node, &self.lane));
    }
}

impl<B> Stall for Producer<B>
where
    B: InnerBody,
{
    fn stalled(self: Arc<Self>) {
        if self.outlives_readers() || self.lane.readers.followers() > 0 || self.node.is_read_elsewhere(&self.lane) {
            // Spawned, since the engine's lock may be held while the inner body is polled.
            let executor = self.node.executor.clone();
            executor.spawn(async move { self.take_over() });
        }
    }
}

impl<B> Producing for Producer<B>
where
    B: InnerBody,
{
    fn halted(self: Arc<Self>) {
        if !self.node.serves_on(&self.lane.status()) {
            Producer::discard(&self);
        }
    }

    fn release(self: Arc<Self>) {
        if self.outlives_readers() && self.comes_again {
            self.released.store(true, Ordering::Release);
            self.take_over();
        }
    }

    fn discard(self: Arc<Self>) {
        Producer::discard(&self);
    }

    fn is_endless(&self) -> bool {
        self.route.endless
    }
}
