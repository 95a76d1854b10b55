//! The model: the right answers of a store, from a plain map and without regard to cost.

use std::collections::BTreeMap;

use resilient_sse::{
    Ended, EventId, NodeId, Origin, Record, RecordKind, StreamKey, StreamState, Turn,
    store::{
        Append, Appended, Beat, Close, Closed, DueReason, Fence, Interrupt, Interrupted, Open, Opened, Place, Reopen,
        Reopened,
    },
    wire::{Sse, single_events},
};

use super::pointers::Pointing;

#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) kind: String,
    pub(crate) origin: Origin,
    pub(crate) fingerprint: Option<String>,
    pub(crate) state: StreamState,
    pub(crate) epoch: u64,
    token: u128,
    pub(crate) node: NodeId,
    pub(crate) started: bool,
    reruns: bool,
    pub(crate) deadline: u64,
    pub(crate) expires: u64,
    pub(crate) turn: Option<Turn>,
    leased: u64,
    hook: Option<u64>,
    /// The last event of the newest run but one, or of the newest run if that is interrupted.
    previous: Option<EventId>,
    pub(crate) ended: Option<Ended>,
    pub(crate) log: BTreeMap<EventId, RecordKind>,
    /// Up to where events were lost with a store that forgot them.
    lost: EventId,
}

impl Stream {
    /// The newest known event, not counting the end.
    fn recorded(&self) -> EventId {
        self.lost.max(*self.log.keys().last().unwrap())
    }

    pub(crate) fn top(&self) -> EventId {
        self.ended.as_ref().map_or(self.recorded(), |ended| ended.id)
    }

    fn fence(&self, epoch: u64) -> Option<Fence> {
        match (&self.ended, self.state) {
            _ if self.epoch != epoch => Some(Fence::Newer),
            (Some(ended), _) => Some(Fence::Ended(ended.clone())),
            (None, StreamState::Interrupted) => Some(Fence::Newer),
            _ => None,
        }
    }
}

pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) streams: BTreeMap<StreamKey, Stream>,
    /// The highest epoch that a name ever had.
    highest: BTreeMap<StreamKey, u64>,
    pub(crate) pointers: BTreeMap<StreamKey, Pointing>,
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

impl Model {
    pub(crate) fn at(now: u64) -> Self {
        Self { now, streams: BTreeMap::new(), highest: BTreeMap::new(), pointers: BTreeMap::new() }
    }

    /// A stream, unless it has expired.
    pub(crate) fn held(&mut self, key: &StreamKey) -> Option<&mut Stream> {
        let now = self.now;
        self.streams.get_mut(key).filter(|stream| {
            let stands = stream.state == StreamState::Interrupted && stream.reruns;
            !((stands || stream.state.is_terminal()) && stream.expires <= now)
        })
    }

    fn next_epoch(&mut self, key: &StreamKey) -> u64 {
        let highest = self.highest.entry(key.clone()).or_default();
        *highest = self.now.max(*highest + 1);
        *highest
    }

    fn begin(&mut self, open: &Open, epoch: u64, previous: Option<EventId>, mut log: BTreeMap<EventId, RecordKind>) {
        // A run that made nothing leaves no marker: the next run's marker stands for it too.
        let mut before = previous;
        if let Some((id, RecordKind::Run { previous: its })) =
            log.last_key_value().map(|(id, kind)| (*id, kind.clone()))
            && previous == Some(id)
        {
            before = its;
            log.remove(&id);
        }
        log.insert(EventId::new(epoch, 0), RecordKind::Run { previous: before });
        let stream = Stream {
            kind: open.kind.to_string(),
            origin: open.origin,
            fingerprint: open.fingerprint.clone(),
            state: StreamState::Active,
            epoch,
            token: open.token,
            node: open.node.clone(),
            started: open.started,
            reruns: open.reruns,
            deadline: self.now + millis(open.retention.stale),
            expires: self.now + millis(open.retention.lifetime),
            turn: open.turn.clone(),
            leased: 0,
            hook: None,
            previous,
            ended: None,
            log,
            lost: EventId::default(),
        };
        self.streams.insert(open.key.clone(), stream);
    }

    pub(crate) fn open(&mut self, open: &Open) -> Opened {
        let new = |epoch, previous, origin| Opened::New { epoch, previous, inner_id: None, origin };
        let Some(stream) = self.held(&open.key) else {
            if !open.create {
                return Opened::Missing;
            }
            let epoch = self.next_epoch(&open.key);
            self.begin(open, epoch, None, BTreeMap::new());
            return new(epoch, None, open.origin);
        };
        let repeated = stream.state == StreamState::Active && stream.token == open.token;
        let same_kind = stream.kind == open.kind;
        let made_up = stream.origin == Origin::Generated;
        match (open.origin, stream.origin) {
            _ if repeated => {
                stream.turn = stream.turn.take().or(open.turn.clone());
                stream.started |= open.started;
                return new(stream.epoch, stream.previous, stream.origin);
            }
            (Origin::Named, Origin::Named | Origin::Generated) if !same_kind => {
                return Opened::OtherKind { kind: stream.kind.clone().into() };
            }
            (Origin::Generated, _) if !(same_kind && made_up) => return Opened::Missing,
            _ => {}
        }
        if stream.fingerprint.is_some() && open.fingerprint.is_some() && stream.fingerprint != open.fingerprint {
            return Opened::OtherFingerprint;
        }
        match stream.state {
            StreamState::Active => Opened::Active { started: stream.started },
            StreamState::Interrupted => {
                let (previous, log) = (stream.previous, stream.log.clone());
                let fingerprint = open.fingerprint.clone().or_else(|| stream.fingerprint.clone());
                let origin = if made_up && open.origin == Origin::Named { Origin::Generated } else { open.origin };
                let turn = stream.turn.clone().or(open.turn.clone());
                let epoch = self.next_epoch(&open.key);
                self.begin(&Open { fingerprint, origin, turn, ..open.clone() }, epoch, previous, log);
                new(epoch, previous, origin)
            }
            _ => Opened::Ended(stream.ended.clone().unwrap()),
        }
    }

    pub(crate) fn withdraw(&mut self, key: &StreamKey, token: u128) {
        let Some(stream) = self.held(key) else { return };
        if stream.state != StreamState::Active || stream.token != token || stream.started {
            return;
        }
        if stream.previous.is_some() {
            stream.state = StreamState::Interrupted;
            stream.previous = Some(EventId::new(stream.epoch, 0));
        } else {
            let epoch = stream.epoch;
            let conversation = self.conversation_of(key);
            self.streams.remove(key);
            if let Some(conversation) = conversation {
                self.unpoint(&conversation, &key.id, Some(epoch));
            }
        }
    }

    pub(crate) fn append(&mut self, append: &Append, lifetime: u64) -> Appended {
        let now = self.now;
        // The registration of a run that is newer than the stored one was lost.
        let Some(stream) = self.held(&append.key).filter(|stream| stream.epoch >= append.epoch) else {
            return Appended::Gone;
        };
        if let Some(fence) = stream.fence(append.epoch) {
            return Appended::Fenced(fence);
        }
        let id = |seq| EventId::new(append.epoch, seq);
        let ids = (append.first..).take(append.events.count as usize).map(id);
        let is_news = ids.clone().next().is_none_or(|first| first > stream.recorded());
        let was_held = |id: EventId| stream.log.contains_key(&id) || id <= stream.lost;
        if !is_news && !ids.clone().all(was_held) {
            return Appended::Refused;
        }
        let batch = Record {
            id: id(append.first + append.events.count - 1),
            at: 0,
            kind: RecordKind::Events(append.events.clone()),
        };
        for event in single_events(&Sse, batch).into_iter().take(append.events.count as usize) {
            if is_news {
                stream.log.insert(event.id, event.kind);
            }
        }
        stream.started |= append.starts || !append.events.is_empty();
        stream.expires = now + lifetime;
        Appended::Stored
    }

    pub(crate) fn close(&mut self, close: &Close, window: u64) -> Closed {
        let now = self.now;
        let named = close.epoch.unwrap_or_default();
        let Some(stream) = self.held(&close.key).filter(|stream| stream.epoch >= named) else { return Closed::Missing };
        if let Some(ended) = stream.ended.clone() {
            self.expires_with(&close.key);
            return Closed::Before(ended);
        }
        if close.epoch.is_some_and(|epoch| epoch != stream.epoch) {
            return Closed::Newer;
        }
        if close.if_deadline.is_some_and(|deadline| deadline != stream.deadline) {
            return Closed::Moved;
        }
        let stands = stream.state == StreamState::Interrupted;
        let made = stream.previous.filter(|_| stands).unwrap_or_default();
        let said = close.last.map(|seq| EventId::new(stream.epoch, seq)).unwrap_or_default();
        let id = EventId::new(stream.epoch + 1, 0);
        let ended = Ended { ending: close.ending.clone(), id, last: stream.recorded().max(made).max(said), at: now };
        stream.state = close.ending.state;
        stream.ended = Some(ended.clone());
        stream.expires = now + window;
        stream.hook = close.hook.map(|lease| now + millis(lease));
        let node = Some(stream.node.clone());
        let highest = self.highest.get_mut(&close.key).unwrap();
        *highest = (*highest).max(id.epoch);
        self.expires_with(&close.key);
        Closed::Now { ended, node }
    }

    pub(crate) fn interrupt(&mut self, interrupt: &Interrupt) -> Interrupted {
        let Some(stream) = self.held(&interrupt.key).filter(|stream| stream.epoch >= interrupt.epoch) else {
            return Interrupted::Missing;
        };
        if stream.state == StreamState::Interrupted && stream.epoch == interrupt.epoch {
            self.expires_with(&interrupt.key);
            return Interrupted::Done;
        }
        if let Some(fence) = stream.fence(interrupt.epoch) {
            return Interrupted::Fenced(fence);
        }
        if interrupt.if_deadline.is_some_and(|deadline| deadline != stream.deadline) {
            return Interrupted::Moved;
        }
        let said = interrupt.last.map(|seq| EventId::new(stream.epoch, seq)).unwrap_or_default();
        stream.previous = Some(stream.recorded().max(said));
        stream.state = StreamState::Interrupted;
        self.expires_with(&interrupt.key);
        Interrupted::Done
    }

    pub(crate) fn reopen(&mut self, reopen: &Reopen) -> Reopened {
        let key = &reopen.open.key;
        let (mut previous, mut log) = (None, BTreeMap::new());
        let mut open = reopen.open.clone();
        if let Some(stream) = self.held(key) {
            if stream.epoch >= reopen.epoch {
                return match stream.fence(reopen.epoch) {
                    None if stream.token == reopen.open.token => Reopened::Registered,
                    fence => Reopened::Fenced(fence.unwrap_or(Fence::Newer)),
                };
            }
            if stream.ended.is_none() {
                let stands = stream.state == StreamState::Interrupted;
                previous = if stands { stream.previous } else { Some(stream.recorded()) };
                log = stream.log.clone();
                open.fingerprint = open.fingerprint.or_else(|| stream.fingerprint.clone());
                if stream.origin == Origin::Generated && open.origin == Origin::Named {
                    open.origin = Origin::Generated;
                }
                open.turn = stream.turn.clone().or(open.turn);
            }
        }
        let highest = self.highest.entry(key.clone()).or_default();
        *highest = (*highest).max(reopen.epoch);
        self.begin(&open, reopen.epoch, None, log);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.previous = previous;
            stream.started |= reopen.acknowledged > 0;
            stream.lost = EventId::new(reopen.epoch, reopen.acknowledged);
        }
        if let Some(conversation) = self.conversation_of(key) {
            let kept = millis(open.retention.lifetime + open.retention.recovery_window + open.retention.stale);
            let place = Place { epoch: reopen.epoch, since: reopen.since };
            self.renew(&conversation, &key.id, kept, Some(place));
        }
        Reopened::Registered
    }

    pub(crate) fn beat(&mut self, beat: &Beat, lifetime: u64) -> Vec<usize> {
        let now = self.now;
        let mut is_lost = |(key, epoch): &(StreamKey, u64)| {
            let own = |stream: &&mut Stream| stream.state == StreamState::Active && stream.epoch == *epoch;
            let Some(stream) = self.held(key).filter(own) else { return true };
            stream.deadline = now + millis(beat.stale);
            stream.expires = now + lifetime;
            false
        };
        beat.streams.iter().enumerate().filter_map(|(index, stream)| is_lost(stream).then_some(index)).collect()
    }

    /// Returns the due streams, with the deadlines that the leases write.
    pub(crate) fn due(&mut self, lease: u64, claim: Option<u64>) -> Vec<(StreamKey, DueReason, u64)> {
        let (now, mut due) = (self.now, Vec::new());
        for key in self.streams.keys().cloned().collect::<Vec<_>>() {
            let Some(stream) = self.held(&key) else { continue };
            let reason = if stream.state.is_terminal() {
                stream.hook.filter(|at| *at <= now).map(|_| DueReason::Hook)
            } else {
                let active = stream.state == StreamState::Active;
                let at = if active { claim.map(|claim| claim.min(now)) } else { Some(now) };
                let outlived = at.is_some_and(|at| stream.expires.max(stream.leased) <= at);
                let stale = active && at.is_some_and(|at| stream.deadline <= at);
                outlived.then_some(DueReason::Lifetime).or(stale.then_some(DueReason::Stale))
            };
            let Some(reason) = reason else { continue };
            if reason == DueReason::Hook {
                stream.hook = Some(now + lease);
            } else {
                (stream.deadline, stream.leased) = (now + lease, now + lease);
            }
            due.push((key, reason, stream.deadline));
        }
        due
    }
}
