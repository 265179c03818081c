//! YAML as nodes with lines.
//!
//! The tree is built from the events of the scanner with a stack of its own, so depth costs no call stack. A
//! node that has an anchor is stored once; its aliases share it, and pay for its size in [`Limits`] all the
//! same, because whoever walks the tree meets it again.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use crate::{
    Limits,
    error::{Fault, escape, quoted},
    scalar::{self, ScalarKind},
    text,
};

/// The deepest nesting of `[` and `{` that the scanner takes.
const SCANNER_DEPTH: usize = 255;

/// The place of a node in its tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeId(usize);

/// One node and the line where it begins.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) line: u64,
    pub(crate) content: Content<'a>,
}

/// What a node holds.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    /// A text, and whether it stood without quotes.
    Scalar { text: Cow<'a, str>, plain: bool },
    /// The items of a list.
    List(Vec<NodeId>),
    /// The keys and values of a mapping; the keys are strings and differ.
    Map(Vec<(NodeId, NodeId)>),
}

/// The one document of a file.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    root: NodeId,
}

impl<'a> Tree<'a> {
    /// Builds the tree of a text that [`text::admit`](crate::text::admit) let in.
    pub(crate) fn build(text: &'a str, limits: &Limits) -> Result<Self, Fault> {
        let mut builder = Builder::new(limits);
        // The scanner puts what the end of the file cuts off on a line after the last, which no editor shows.
        let last_line = text::last_line(text);
        let line_of = |marker: &Marker| line_number(marker.line()).min(last_line);
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| scan_fault(&error, line_of(error.marker()), limits))?;
            if matches!(event, Event::StreamEnd) {
                break;
            }
            builder.take(event, line_of(&span.start))?;
        }
        match builder.root {
            Some(root) if !builder.is_null(root) => Ok(Self { nodes: builder.nodes, root }),
            _ => Err(Fault::at(1, "the file is empty")),
        }
    }

    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node<'a> {
        &self.nodes[id.0]
    }

    /// The text of a scalar; the empty text for what is no scalar, which a key never is.
    pub(crate) fn text(&self, id: NodeId) -> &str {
        match &self.node(id).content {
            Content::Scalar { text, .. } => text,
            Content::List(_) | Content::Map(_) => "",
        }
    }
}

/// What a node costs whoever walks it, aliases followed.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
}

impl Weight {
    fn add(&mut self, other: Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// An anchor: of a node that is complete, or of one that is still open.
#[derive(Debug)]
enum Anchor {
    Open,
    Done(NodeId, Weight),
}

/// A list or mapping that is still open.
#[derive(Debug)]
struct Frame<'a> {
    anchor: usize,
    line: u64,
    weight: Weight,
    items: Items<'a>,
}

#[derive(Debug)]
enum Items<'a> {
    List(Vec<NodeId>),
    Map { entries: Vec<(NodeId, NodeId)>, key: Option<NodeId>, seen: HashMap<Cow<'a, str>, u64> },
}

#[derive(Debug)]
struct Builder<'a, 'l> {
    limits: &'l Limits,
    nodes: Vec<Node<'a>>,
    open: Vec<Frame<'a>>,
    anchors: HashMap<usize, Anchor>,
    aliased: Weight,
    documents: usize,
    root: Option<NodeId>,
}

impl<'a, 'l> Builder<'a, 'l> {
    fn new(limits: &'l Limits) -> Self {
        let anchors = HashMap::new();
        let aliased = Weight::default();
        Self { limits, nodes: Vec::new(), open: Vec::new(), anchors, aliased, documents: 0, root: None }
    }

    fn take(&mut self, event: Event<'a>, line: u64) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(_) => self.document(line),
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                self.scalar(text, style, anchor, line)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                self.open(anchor, line, Items::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.is_some(), line)?;
                self.open(anchor, line, Items::Map { entries: Vec::new(), key: None, seen: HashMap::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn document(&mut self, line: u64) -> Result<(), Fault> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(Fault::at(line, "the file has a second document; a pipeline file has one"));
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        anchor: usize,
        line: u64,
    ) -> Result<(), Fault> {
        let most = self.limits.string_bytes;
        if text.len() > most {
            let cause = format!("a string has {} bytes, above the limit of {most}", text.len());
            return Err(Fault::at(line, cause));
        }
        if text.contains('\0') {
            return Err(Fault::at(line, format!("the string {} has a NUL character", quoted(&text))));
        }
        let weight = Weight { nodes: 1, bytes: text.len() };
        let plain = matches!(style, ScalarStyle::Plain);
        let id = self.add(line, Content::Scalar { text, plain });
        self.finish(id, weight, anchor, line)
    }

    fn open(&mut self, anchor: usize, line: u64, items: Items<'a>) -> Result<(), Fault> {
        if self.open.len() >= self.limits.depth {
            return Err(too_deep(line, self.limits.depth));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor::Open);
        }
        self.open.push(Frame { anchor, line, weight: Weight { nodes: 1, bytes: 0 }, items });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(Frame { anchor, line, weight, items }) = self.open.pop() else {
            return Err(Fault::whole("not valid YAML: a list or mapping ends that did not begin"));
        };
        let content = match items {
            Items::List(items) => Content::List(items),
            Items::Map { entries, .. } => Content::Map(entries),
        };
        let id = self.add(line, content);
        self.finish(id, weight, anchor, line)
    }

    /// Shares the anchor's node; the running total of [`Weight`] stops a bomb at the alias that goes too far.
    fn alias(&mut self, anchor: usize, line: u64) -> Result<(), Fault> {
        let (id, weight) = match self.anchors.get(&anchor) {
            Some(Anchor::Done(id, weight)) => (*id, *weight),
            Some(Anchor::Open) => {
                return Err(Fault::at(line, "an alias refers to a node that it is part of"));
            }
            None => return Err(Fault::at(line, "an alias refers to no anchor")),
        };
        self.aliased.add(weight);
        let (nodes, bytes) = (self.limits.alias_nodes, self.limits.alias_bytes);
        if self.aliased.nodes > nodes {
            return Err(Fault::at(line, format!("aliases expand to more than the limit of {nodes} nodes")));
        }
        if self.aliased.bytes > bytes {
            return Err(Fault::at(line, format!("aliases expand to more than the limit of {bytes} bytes")));
        }
        self.finish(id, weight, 0, line)
    }

    fn add(&mut self, line: u64, content: Content<'a>) -> NodeId {
        self.nodes.push(Node { line, content });
        NodeId(self.nodes.len() - 1)
    }

    /// Names a complete node by its anchor and hands it to the list or mapping that is open, or to the root.
    fn finish(&mut self, id: NodeId, weight: Weight, anchor: usize, line: u64) -> Result<(), Fault> {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor::Done(id, weight));
        }
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(id);
            return Ok(());
        };
        frame.weight.add(weight);
        match &mut frame.items {
            Items::List(items) => items.push(id),
            Items::Map { entries, key, seen } => match key.take() {
                None => {
                    let text = key_text(&self.nodes[id.0], line)?;
                    refuse_duplicate(&text, seen.insert(text.clone(), line), line)?;
                    *key = Some(id);
                }
                Some(key) => {
                    entries.push((key, id));
                    // The scanner places a value that is not there at whatever comes next.
                    let key_line = self.nodes[key.0].line;
                    let value = &mut self.nodes[id.0];
                    if matches!(&value.content, Content::Scalar { text, plain: true } if text.is_empty()) {
                        value.line = key_line;
                    }
                }
            },
        }
        Ok(())
    }

    fn is_null(&self, id: NodeId) -> bool {
        matches!(&self.nodes[id.0].content, Content::Scalar { text, plain } if scalar::resolve(text, *plain) == ScalarKind::Null)
    }
}

/// A fault of the scanner, which looks ahead: it may meet its own limit of depth before the builder meets ours.
fn scan_fault(error: &ScanError, line: u64, limits: &Limits) -> Fault {
    if error.info() == "recursion limit exceeded" {
        return too_deep(line, limits.depth.min(SCANNER_DEPTH));
    }
    Fault::at(line, format!("not valid YAML: {}", escape(error.info())))
}

fn too_deep(line: u64, most: usize) -> Fault {
    Fault::at(line, format!("lists and mappings are nested deeper than the limit of {most}"))
}

/// The text of a node as a key: a string, and not YAML 1.1's merge.
fn key_text<'a>(node: &Node<'a>, line: u64) -> Result<Cow<'a, str>, Fault> {
    let wrong = |actual: &str| Err(Fault::at(line, format!("a key must be a string, not {actual}")));
    match &node.content {
        Content::List(_) => wrong("a list"),
        Content::Map(_) => wrong("a mapping"),
        Content::Scalar { text, plain } => match scalar::resolve(text, *plain) {
            ScalarKind::String if *plain && text == "<<" => {
                Err(Fault::at(line, "merge keys (\"<<\") are not part of YAML 1.2"))
            }
            ScalarKind::String => Ok(text.clone()),
            ScalarKind::Null | ScalarKind::Boolean | ScalarKind::Integer | ScalarKind::Float => {
                wrong(&scalar::describe(text, *plain))
            }
        },
    }
}

fn refuse_duplicate(key: &str, first: Option<u64>, line: u64) -> Result<(), Fault> {
    first.map_or(Ok(()), |first| {
        Err(Fault::at(line, format!("the key {} is there twice; first at line {first}", quoted(key))))
    })
}

fn refuse_tag(has_tag: bool, line: u64) -> Result<(), Fault> {
    if has_tag { Err(Fault::at(line, "a tag (\"!…\") has no meaning in a pipeline file")) } else { Ok(()) }
}

fn line_number(line: usize) -> u64 {
    u64::try_from(line).unwrap_or(u64::MAX).max(1)
}
