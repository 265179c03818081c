//! Who shares with whom: a tree of shares at each level, with the lines of jobs as its leaves.

use super::rounds::Rounds;
use hodei_core::job::Priority;

use super::lines::Line;
use super::names::NONE;

/// Whose turn it is, on the way down: a node of the tree, or a flow when the highest bit is set.
const FLOW: u32 = 1 << 31;
/// How deep shares may lie within shares.
pub(super) const DEPTH_MAX: usize = 8;
/// How many levels there are. The first nodes of the tree are their roots.
pub(super) const LEVELS: usize = 64;

/// What something has at each level; nothing at most of them.
#[derive(Debug)]
struct Levels(Box<[u32; LEVELS]>);

impl Default for Levels {
    fn default() -> Self {
        Self(Box::new([NONE; LEVELS]))
    }
}

impl Levels {
    #[inline]
    fn get(&self, level: u8) -> Option<u32> {
        let there = self.0[usize::from(level) % LEVELS];
        (there != NONE).then_some(there)
    }

    fn set(&mut self, level: u8, what: u32) {
        self.0[usize::from(level) % LEVELS] = what;
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied().filter(|there| *there != NONE)
    }
}

/// A share that lanes and other shares draw from together.
#[derive(Debug)]
struct Share {
    parent: u32,
    weight: u32,
    /// How many lanes and shares draw from it.
    children: u32,
    nodes: Levels,
    open: bool,
}

/// A share at one level.
#[derive(Debug, Default)]
struct Node {
    rounds: Rounds,
    parent: u32,
    /// Its seat among its parent's.
    member: u32,
}

/// Whose jobs wait in a line of their own at each level.
#[derive(Debug)]
struct Lane {
    share: u32,
    class: u32,
    weight: u32,
    /// How many jobs it has that are delayed.
    delayed: u32,
    flows: Levels,
    open: bool,
}

/// How a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has no jobs.
    Empty,
    /// It takes turns.
    Active,
    /// It has jobs, but its class is held back.
    Parked,
}

/// The line of a lane at one level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) line: Line,
    pub(super) lane: u32,
    pub(super) class: u32,
    pub(super) level: Priority,
    pub(super) standing: Standing,
    /// Whether the wheel of ages will come back to it.
    pub(super) watched: bool,
    /// Whether it is noted among those that stand aside.
    pub(super) aside: bool,
    node: u32,
    member: u32,
}

/// Shares, lanes and flows.
#[derive(Debug)]
pub(super) struct Tree {
    shares: Vec<Share>,
    free_shares: Vec<u32>,
    lanes: Vec<Lane>,
    free_lanes: Vec<u32>,
    nodes: Vec<Node>,
    free_nodes: Vec<u32>,
    flows: Vec<Flow>,
    free_flows: Vec<u32>,
    /// The levels at which somebody takes turns.
    levels: u64,
}

impl Default for Tree {
    fn default() -> Self {
        let root = || Node { rounds: Rounds::default(), parent: NONE, member: NONE };
        Self {
            shares: Vec::new(),
            free_shares: Vec::new(),
            lanes: Vec::new(),
            free_lanes: Vec::new(),
            nodes: std::iter::repeat_with(root).take(LEVELS).collect(),
            free_nodes: Vec::new(),
            flows: Vec::new(),
            free_flows: Vec::new(),
            levels: 0,
        }
    }
}

impl Tree {
    /// Opens a share within another one, or of the whole.
    pub(super) fn open_share(&mut self, parent: u32, weight: u32) -> u32 {
        let mut depth = 1;
        let mut above = parent;
        while above != NONE {
            depth += 1;
            above = self.shares[above as usize].parent;
        }
        assert!(depth < DEPTH_MAX, "shares lie at most {DEPTH_MAX} deep");
        if parent != NONE {
            assert!(self.shares[parent as usize].open, "the share was closed");
            self.shares[parent as usize].children += 1;
        }
        let share = Share { parent, weight, children: 0, nodes: Levels::default(), open: true };
        put(&mut self.shares, &mut self.free_shares, share)
    }

    /// Changes the weight of a share.
    pub(super) fn reweigh(&mut self, share: u32, weight: u32) {
        self.shares[share as usize].weight = weight;
        for node in self.shares[share as usize].nodes.iter() {
            let (parent, member) = (self.nodes[node as usize].parent, self.nodes[node as usize].member);
            self.nodes[parent as usize].rounds.reweigh(member, weight);
        }
    }

    /// Opens a lane within a share.
    pub(super) fn open_lane(&mut self, share: u32, class: u32, weight: u32) -> u32 {
        assert!(self.shares[share as usize].open, "the share was closed");
        self.shares[share as usize].children += 1;
        let lane = Lane { share, class, weight, delayed: 0, flows: Levels::default(), open: true };
        put(&mut self.lanes, &mut self.free_lanes, lane)
    }

    /// Closes a lane without jobs, and gives its flows to `free`; `false` when it has some.
    pub(super) fn close_lane(&mut self, lane: u32, mut free: impl FnMut(u32, &mut Flow)) -> bool {
        if !self.lanes[lane as usize].open || self.jobs_of(lane) > 0 {
            return false;
        }
        let closing = &mut self.lanes[lane as usize];
        closing.open = false;
        let share = closing.share;
        let flows = std::mem::take(&mut closing.flows);
        for flow in flows.iter() {
            free(flow, &mut self.flows[flow as usize]);
            let Flow { node, member, watched, .. } = self.flows[flow as usize];
            self.nodes[node as usize].rounds.leave(member);
            // One that the wheel still comes back to is freed then.
            self.flows[flow as usize].lane = NONE;
            if !watched {
                self.free_flows.push(flow);
            }
        }
        self.free_lanes.push(lane);
        self.shares[share as usize].children -= 1;
        true
    }

    /// Closes a share from which nobody draws; `false` when somebody does.
    pub(super) fn close_share(&mut self, share: u32) -> bool {
        let closing = &mut self.shares[share as usize];
        if !closing.open || closing.children > 0 {
            return false;
        }
        closing.open = false;
        let parent = closing.parent;
        let nodes = std::mem::take(&mut closing.nodes);
        for node in nodes.iter() {
            let Node { parent, member, .. } = std::mem::take(&mut self.nodes[node as usize]);
            self.nodes[parent as usize].rounds.leave(member);
            self.free_nodes.push(node);
        }
        if parent != NONE {
            self.shares[parent as usize].children -= 1;
        }
        self.free_shares.push(share);
        true
    }

    /// The wheel comes no more to a flow; one whose lane was closed is free now.
    pub(super) fn unwatch(&mut self, flow: u32) {
        let unwatched = &mut self.flows[flow as usize];
        unwatched.watched = false;
        if unwatched.lane == NONE {
            self.free_flows.push(flow);
        }
    }

    /// How many jobs a lane has, those that are delayed too.
    pub(super) fn jobs_of(&self, lane: u32) -> u32 {
        let lane = &self.lanes[lane as usize];
        lane.delayed + lane.flows.iter().map(|flow| self.flows[flow as usize].line.len()).sum::<u32>()
    }

    /// How many jobs are ready at a level.
    pub(super) fn depth(&self, level: Priority) -> usize {
        let flows = self.flows.iter().filter(|flow| flow.lane != NONE && flow.level == level);
        flows.map(|flow| flow.line.len() as usize).sum()
    }

    /// A delayed job of a lane came.
    pub(super) fn delay(&mut self, lane: u32) {
        self.lanes[lane as usize].delayed += 1;
    }

    /// A delayed job of a lane is ready, or has gone.
    pub(super) fn undelay(&mut self, lane: u32) {
        self.lanes[lane as usize].delayed -= 1;
    }

    /// The flow of a lane at a level.
    #[inline]
    pub(super) fn flow_at(&mut self, lane: u32, level: Priority) -> u32 {
        match self.lanes[lane as usize].flows.get(level.level()) {
            Some(flow) => flow,
            None => self.new_flow(lane, level),
        }
    }

    #[inline]
    pub(super) fn flow(&mut self, flow: u32) -> &mut Flow {
        &mut self.flows[flow as usize]
    }

    #[cold]
    fn new_flow(&mut self, lane: u32, level: Priority) -> u32 {
        let Lane { share, class, weight, .. } = self.lanes[lane as usize];
        let node = self.node_at(share, level.level());
        let flow = Flow {
            line: Line::EMPTY,
            lane,
            class,
            level,
            standing: Standing::Empty,
            watched: false,
            aside: false,
            node,
            member: NONE,
        };
        let flow = put(&mut self.flows, &mut self.free_flows, flow);
        self.flows[flow as usize].member = self.nodes[node as usize].rounds.join(flow | FLOW, weight);
        self.lanes[lane as usize].flows.set(level.level(), flow);
        flow
    }

    /// The node of a share at a level, with those above it.
    fn node_at(&mut self, share: u32, level: u8) -> u32 {
        if let Some(node) = self.shares[share as usize].nodes.get(level) {
            return node;
        }
        let Share { parent, weight, .. } = self.shares[share as usize];
        let parent = if parent == NONE { u32::from(level) } else { self.node_at(parent, level) };
        let node = Node { rounds: Rounds::default(), parent, member: NONE };
        let node = put(&mut self.nodes, &mut self.free_nodes, node);
        self.nodes[node as usize].member = self.nodes[parent as usize].rounds.join(node, weight);
        self.shares[share as usize].nodes.set(level, node);
        node
    }

    /// A flow takes turns from now on, and so do the shares above it.
    #[inline]
    pub(super) fn activate(&mut self, flow: u32) {
        let Flow { mut node, mut member, level, .. } = self.flows[flow as usize];
        self.flows[flow as usize].standing = Standing::Active;
        loop {
            let Node { rounds, parent, member: seat } = &mut self.nodes[node as usize];
            let was_idle = rounds.is_idle();
            rounds.activate(member);
            if !was_idle {
                return;
            }
            if *parent == NONE {
                self.levels |= 1 << level.level();
                return;
            }
            (node, member) = (*parent, *seat);
        }
    }

    /// A flow takes no more turns.
    #[inline]
    pub(super) fn deactivate(&mut self, flow: u32, standing: Standing) {
        let Flow { mut node, mut member, level, .. } = self.flows[flow as usize];
        self.flows[flow as usize].standing = standing;
        loop {
            let Node { rounds, parent, member: seat } = &mut self.nodes[node as usize];
            rounds.deactivate(member);
            if !rounds.is_idle() {
                return;
            }
            if *parent == NONE {
                self.levels &= !(1 << level.level());
                return;
            }
            (node, member) = (*parent, *seat);
        }
    }

    /// A flow that stood aside takes turns again, if it has jobs.
    pub(super) fn come_back(&mut self, flow: u32) {
        let back = &mut self.flows[flow as usize];
        back.aside = false;
        if back.standing == Standing::Parked {
            self.activate(flow);
        }
    }

    /// The highest level at which anybody takes turns.
    #[inline]
    pub(super) fn top(&self) -> Option<u32> {
        63_u32.checked_sub(self.levels.leading_zeros())
    }

    /// Whether nobody takes turns with a flow, nor with the shares above it.
    pub(super) fn is_alone(&self, flow: u32) -> bool {
        let mut node = self.flows[flow as usize].node;
        while node != NONE {
            let Node { rounds, parent, .. } = &self.nodes[node as usize];
            if !rounds.is_alone() {
                return false;
            }
            node = *parent;
        }
        true
    }

    /// The flow whose turn it is at the highest level where anybody takes turns.
    #[inline]
    pub(super) fn select(&mut self) -> Option<u32> {
        let mut node = self.top()?;
        loop {
            let what = self.nodes[node as usize].rounds.select()?;
            if what & FLOW != 0 {
                return Some(what & !FLOW);
            }
            node = what;
        }
    }

    /// The flow that was just selected has been served so often, and so have the shares above it; more than once only
    /// when it is alone. With `more` it has work left.
    #[inline]
    pub(super) fn served(&mut self, flow: u32, times: usize, mut more: bool) {
        let Flow { mut node, level, .. } = self.flows[flow as usize];
        if !more {
            self.flows[flow as usize].standing = Standing::Empty;
        }
        loop {
            let Node { rounds, parent, .. } = &mut self.nodes[node as usize];
            more = rounds.served(times, more);
            if *parent == NONE {
                if !more {
                    self.levels &= !(1 << level.level());
                }
                return;
            }
            node = *parent;
        }
    }
}

/// Puts something where a place is free.
fn put<T>(all: &mut Vec<T>, free: &mut Vec<u32>, what: T) -> u32 {
    if let Some(at) = free.pop() {
        all[at as usize] = what;
        return at;
    }
    all.push(what);
    let at = u32::try_from(all.len() - 1).expect("fewer than 2^31 of each");
    assert!(at < FLOW, "fewer than 2^31 of each");
    at
}
