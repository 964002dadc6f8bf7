//! Python's pickles, of which nothing is ever run.
//!
//! A pickle is a program for a stack machine that may call any function of any module. Here its opcodes build plain data:
//! numbers, texts, tuples, lists and dicts, and tensors, which are descriptions of where their elements lie. Of the names of
//! functions and classes those are known that a `state_dict` is made of; what stands beside tensors in checkpoints (dates, NumPy's
//! scalars, settings) becomes [`Value::Opaque`], and a call of anything else is an error.
//!
//! Values lie in one list and refer to each other by number: shared ones are not copied, rings and depth cost no stack.

use crate::{
    fault::{Fault, Outcome},
    header::MOST_AXES,
};
use chainrule_core::text::quote;
use safetensors::Dtype;
use std::{collections::HashMap, io::Read};

/// The longest pickle. A tensor takes about 150 bytes.
pub(crate) const LONGEST: u64 = 64 << 20;

/// How many values a pickle may make, and keep to refer to.
const MOST: usize = 1 << 20;

/// How many values may be on the stack: items of containers, which are added by the thousand, and all of a tuple.
const DEEPEST_STACK: usize = 1 << 16;

/// The longest line of an opcode with a textual argument.
const LONGEST_LINE: usize = 1 << 16;

/// How deep containers may be nested.
const DEEPEST: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(u32),
    Node(u32),
    /// Something of which nothing is known but that it is there.
    Opaque,
}

#[derive(Debug)]
pub(crate) enum Node {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A function or a class: module and name.
    Global(u32, u32),
    /// A whole number beyond 64 bits, little-endian.
    Long(Box<[u8]>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
}

/// Elements in memory, of which tensors are views.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storage {
    /// Nothing for bytes.
    pub dtype: Option<Dtype>,
    pub key: u32,
    /// How many elements.
    pub count: u64,
    /// A part of them: where it begins, and how many.
    pub part: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor {
    pub storage: Storage,
    pub dtype: Dtype,
    /// In elements.
    pub offset: u64,
    /// Tuples of the same length of whole numbers that are not negative.
    pub size: u32,
    pub stride: u32,
}

/// What a pickle made.
#[derive(Debug, Default)]
pub(crate) struct Pickle {
    nodes: Vec<Node>,
    text: String,
    /// Where each text ends.
    ends: Vec<u32>,
    items: usize,
}

impl Pickle {
    /// Runs a pickle of at most `left` bytes up to its end, and says how many it had.
    pub fn load(reader: &mut dyn Read, left: u64) -> Outcome<(Self, Value, u64)> {
        let most = left.min(LONGEST);
        let input = Input { reader, left: most, all: most };
        let mut machine = Machine {
            pickle: Self::default(),
            input,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let value = machine.run().map_err(|fault| fault.within("pickle"))?;
        let read = machine.input.all - machine.input.left;
        Ok((machine.pickle, value, read))
    }

    pub fn text(&self, id: u32) -> &str {
        let begin = id.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        &self.text[begin as usize..self.ends[id as usize] as usize]
    }

    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(id) => self.nodes.get(id as usize),
            _ => None,
        }
    }

    /// The storages that tensors or anything else refers to.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// The elements of a tuple of whole numbers.
    pub fn numbers(&self, tuple: u32) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator {
        let items: &[Value] = match &self.nodes[tuple as usize] {
            Node::Tuple(items) => items,
            _ => &[],
        };
        items.iter().map(|&item| match item {
            Value::Int(n) => n as u64,
            _ => 0,
        })
    }

    /// Which values have tensors in or below them, by number. Rings and great depth are errors.
    pub fn with_tensors(&self, root: Value) -> Outcome<Vec<bool>> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Open,
            Done,
        }
        let mut states = vec![State::New; self.nodes.len()];
        let mut has = vec![false; self.nodes.len()];
        // Values whose children are being looked at, each with the next child.
        let mut path: Vec<(usize, usize)> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(Value::Node(id)) = next {
                let id = id as usize;
                match states[id] {
                    State::New if path.len() == DEEPEST => {
                        return Err(
                            format!("expected containers nested at most {DEEPEST} deep, got more").into()
                        );
                    }
                    State::New => {
                        states[id] = State::Open;
                        path.push((id, 0));
                    }
                    State::Open => {
                        return Err("expected containers without rings, got one that holds itself".into());
                    }
                    State::Done => {
                        if let Some(&(above, _)) = path.last() {
                            has[above] |= has[id];
                        }
                    }
                }
            }
            let Some((id, at)) = path.last_mut() else { return Ok(has) };
            let (id, child) = (*id, *at);
            *at += 1;
            next = match &self.nodes[id] {
                Node::Tuple(items) | Node::List(items) => items.get(child).copied(),
                Node::Dict(pairs) => pairs.get(child).map(|pair| pair.1),
                Node::Tensor(_) => {
                    has[id] = true;
                    None
                }
                _ => None,
            };
            if next.is_none() {
                states[id] = State::Done;
                path.pop();
                if let Some(&(above, _)) = path.last() {
                    has[above] |= has[id];
                }
            }
        }
    }

    fn make(&mut self, node: Node) -> Outcome<Value> {
        if self.nodes.len() == MOST {
            return Err(format!("expected at most {MOST} values, got more").into());
        }
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() as u32 - 1))
    }

    /// Counts the items of containers.
    fn room(&mut self, more: usize) -> Outcome<()> {
        self.items = self.items.saturating_add(more);
        match self.items > 2 * MOST {
            true => Err(format!("expected at most {} items in containers, got more", 2 * MOST).into()),
            false => Ok(()),
        }
    }

    fn add_text(&mut self, text: &str) -> Outcome<Value> {
        if self.ends.len() == MOST {
            return Err(format!("expected at most {MOST} texts, got more").into());
        }
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
        Ok(Value::Text(self.ends.len() as u32 - 1))
    }

    fn global(&self, value: Value) -> Option<(&str, &str)> {
        match self.node(value)? {
            &Node::Global(module, name) => Some((self.text(module), self.text(name))),
            _ => None,
        }
    }

    fn tuple(&self, value: Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

struct Input<'r> {
    reader: &'r mut dyn Read,
    left: u64,
    all: u64,
}

impl Input<'_> {
    fn room(&mut self, n: u64) -> Outcome<()> {
        match self.left.checked_sub(n) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(match self.all {
                LONGEST => format!("expected at most {LONGEST} bytes, got more"),
                _ => "expected more bytes, got the end".into(),
            }
            .into()),
        }
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        self.room(N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Outcome<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Bytes whose number stands in the pickle: no more than it has are made room for.
    fn take(&mut self, n: u64) -> Outcome<Vec<u8>> {
        self.room(n)?;
        let mut bytes = vec![0; n as usize];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self, mut n: u64) -> Outcome<()> {
        self.room(n)?;
        let mut bytes = [0; 1 << 10];
        while n > 0 {
            let some = n.min(bytes.len() as u64);
            self.reader.read_exact(&mut bytes[..some as usize])?;
            n -= some;
        }
        Ok(())
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if line.len() == LONGEST_LINE => {
                    return Err(
                        format!("expected a line of at most {LONGEST_LINE} bytes, got a longer one").into()
                    );
                }
                byte => line.push(byte),
            }
        }
        String::from_utf8(line).map_err(|_| "expected text in UTF-8, got other bytes".into())
    }
}

struct Machine<'r> {
    pickle: Pickle,
    input: Input<'r>,
    stack: Vec<Value>,
    /// How long the stack was at each mark.
    marks: Vec<u32>,
    memo: HashMap<u32, Value>,
}

impl Machine<'_> {
    fn run(&mut self) -> Outcome<Value> {
        loop {
            let value = match self.input.byte()? {
                b'.' => return self.pop(),
                // A protocol: what matters are its opcodes.
                0x80 => {
                    self.input.byte()?;
                    continue;
                }
                // FRAME
                0x95 => {
                    self.input.array::<8>()?;
                    continue;
                }
                b'N' => Value::None,
                0x88 => Value::Bool(true),
                0x89 => Value::Bool(false),
                b'K' => Value::Int(self.input.byte()?.into()),
                b'M' => Value::Int(u16::from_le_bytes(self.input.array()?).into()),
                b'J' => Value::Int(i32::from_le_bytes(self.input.array()?).into()),
                b'I' => match &*self.input.line()? {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    line => whole(line)?,
                },
                b'L' => {
                    let line = self.input.line()?;
                    whole(line.strip_suffix('L').unwrap_or(&line))?
                }
                0x8a => {
                    let n = self.input.byte()?;
                    self.long(n.into())?
                }
                0x8b => {
                    let n = i32::from_le_bytes(self.input.array()?);
                    let n = u64::try_from(n);
                    self.long(
                        n.map_err(|_| "expected an integer of some bytes, got a negative number of them")?,
                    )?
                }
                b'G' => {
                    self.input.array::<8>()?;
                    Value::Opaque
                }
                b'F' => {
                    let line = self.input.line()?;
                    let number = line.trim().parse::<f64>();
                    number.map_err(|_| format!("expected a number, got {}", quote(&line)))?;
                    Value::Opaque
                }
                b'X' => self.text4()?,
                0x8c => {
                    let n = self.input.byte()?;
                    self.unicode(n.into())?
                }
                0x8d => {
                    let n = u64::from_le_bytes(self.input.array()?);
                    self.unicode(n)?
                }
                b'V' => {
                    let line = self.input.line()?;
                    self.pickle.add_text(&line)?
                }
                b'S' => {
                    let line = self.input.line()?;
                    let inner =
                        ['\'', '"'].iter().find_map(|&q| line.trim().strip_prefix(q)?.strip_suffix(q));
                    match inner {
                        Some(inner) if !inner.contains('\\') => self.pickle.add_text(inner)?,
                        Some(_) => Value::Opaque,
                        None => return Err(format!("expected a quoted text, got {}", quote(&line)).into()),
                    }
                }
                // Texts of Python 2, which may be bytes.
                b'T' => {
                    let n = i32::from_le_bytes(self.input.array()?);
                    let n = u64::try_from(n);
                    self.old_text(
                        n.map_err(|_| "expected a text of some bytes, got a negative number of them")?,
                    )?
                }
                b'U' => {
                    let n = self.input.byte()?;
                    self.old_text(n.into())?
                }
                b'B' => {
                    let n = u32::from_le_bytes(self.input.array()?);
                    self.skipped(n.into())?
                }
                b'C' => {
                    let n = self.input.byte()?;
                    self.skipped(n.into())?
                }
                // BINBYTES8, BYTEARRAY8
                0x8e | 0x96 => {
                    let n = u64::from_le_bytes(self.input.array()?);
                    self.skipped(n)?
                }
                b')' => self.pickle.make(Node::Tuple(Vec::new()))?,
                b']' => self.pickle.make(Node::List(Vec::new()))?,
                b'}' => self.pickle.make(Node::Dict(Vec::new()))?,
                // EMPTY_SET
                0x8f => Value::Opaque,
                // TUPLE1, TUPLE2, TUPLE3
                op @ 0x85..=0x87 => {
                    let items = self.popped(usize::from(op - 0x84))?;
                    self.container(Node::Tuple(items))?
                }
                b't' => {
                    let items = self.since_mark()?;
                    self.container(Node::Tuple(items))?
                }
                b'l' => {
                    let items = self.since_mark()?;
                    self.container(Node::List(items))?
                }
                b'd' => {
                    let items = self.since_mark()?;
                    let dict = self.pickle.make(Node::Dict(Vec::new()))?;
                    self.set(dict, &items)?;
                    dict
                }
                // FROZENSET
                0x91 => {
                    self.since_mark()?;
                    Value::Opaque
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                    continue;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(&items)?;
                    continue;
                }
                // ADDITEMS
                0x90 => {
                    self.since_mark()?;
                    self.top()?;
                    continue;
                }
                b's' => {
                    let pair = self.popped(2)?;
                    let dict = self.top()?;
                    self.set(dict, &pair)?;
                    continue;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    let dict = self.top()?;
                    self.set(dict, &items)?;
                    continue;
                }
                b'(' => {
                    if self.marks.len() == DEEPEST_STACK {
                        return Err(format!("expected at most {DEEPEST_STACK} marks, got more").into());
                    }
                    self.marks.push(self.stack.len() as u32);
                    continue;
                }
                b'0' => {
                    if self.marks.last() == Some(&(self.stack.len() as u32)) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                    continue;
                }
                b'1' => {
                    self.since_mark()?;
                    continue;
                }
                b'2' => self.top()?,
                b'g' => {
                    let line = self.input.line()?;
                    self.get(number(&line)?)?
                }
                b'h' => {
                    let id = self.input.byte()?;
                    self.get(id.into())?
                }
                b'j' => {
                    let id = u32::from_le_bytes(self.input.array()?);
                    self.get(id)?
                }
                b'p' => {
                    let line = self.input.line()?;
                    self.put(number(&line)?)?;
                    continue;
                }
                b'q' => {
                    let id = self.input.byte()?;
                    self.put(id.into())?;
                    continue;
                }
                b'r' => {
                    let id = u32::from_le_bytes(self.input.array()?);
                    self.put(id)?;
                    continue;
                }
                // MEMOIZE
                0x94 => {
                    self.put(self.memo.len() as u32)?;
                    continue;
                }
                b'c' => {
                    let [module, name] = [self.input.line()?, self.input.line()?];
                    self.global(&module, &name)?
                }
                // STACK_GLOBAL
                0x93 => match self.popped(2)?[..] {
                    [Value::Text(module), Value::Text(name)] => {
                        self.pickle.make(Node::Global(module, name))?
                    }
                    _ => return Err("expected the names of a module and a class, got others".into()),
                },
                b'i' => {
                    let [module, name] = [self.input.line()?, self.input.line()?];
                    let items = self.since_mark()?;
                    let args = self.container(Node::Tuple(items))?;
                    let global = self.global(&module, &name)?;
                    self.call(global, args)?
                }
                b'o' => {
                    let mut items = self.since_mark()?;
                    if items.is_empty() {
                        return Err("expected a class before its arguments, got none".into());
                    }
                    let class = items.remove(0);
                    let args = self.container(Node::Tuple(items))?;
                    self.call(class, args)?
                }
                b'R' => match self.popped(2)?[..] {
                    [callable, args] => self.call(callable, args)?,
                    _ => return Err(underflow()),
                },
                // NEWOBJ, NEWOBJ_EX
                op @ (0x81 | 0x92) => {
                    let values = self.popped(usize::from(op == 0x92) + 2)?;
                    self.object(values[0], values[1])?
                }
                // The attributes of an object: none of what is read has any.
                b'b' => {
                    self.pop()?;
                    self.top()?;
                    continue;
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.storage(id)?
                }
                other => {
                    let names = match other {
                        b'P' => " (a persistent id as text)",
                        0x82..=0x84 => " (an extension)",
                        0x97 | 0x98 => " (a buffer outside of the pickle)",
                        _ => "",
                    };
                    return Err(format!("expected an opcode of a state_dict, got {other:#04x}{names}").into());
                }
            };
            if self.stack.len() == DEEPEST_STACK {
                return Err(format!("expected a stack of at most {DEEPEST_STACK} values, got more").into());
            }
            self.stack.push(value);
        }
    }

    /// Values above the last mark are on the stack; those below are not touched before it goes.
    fn floor(&self) -> usize {
        self.marks.last().map_or(0, |&mark| mark as usize)
    }

    fn pop(&mut self) -> Outcome<Value> {
        if self.stack.len() <= self.floor() {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn top(&self) -> Outcome<Value> {
        match self.stack.len() > self.floor() {
            true => self.stack.last().copied().ok_or_else(underflow),
            false => Err(underflow()),
        }
    }

    fn popped(&mut self, n: usize) -> Outcome<Vec<Value>> {
        match self.stack.len().checked_sub(n) {
            Some(at) if at >= self.floor() => Ok(self.stack.split_off(at)),
            _ => Err(underflow()),
        }
    }

    fn since_mark(&mut self) -> Outcome<Vec<Value>> {
        let mark = self.marks.pop().ok_or("expected a mark on the stack, got none")?;
        Ok(self.stack.split_off(mark as usize))
    }

    fn get(&self, id: u32) -> Outcome<Value> {
        self.memo
            .get(&id)
            .copied()
            .ok_or_else(|| format!("expected a value that was kept, got none as {id}").into())
    }

    fn put(&mut self, id: u32) -> Outcome<()> {
        let top = self.top()?;
        self.memo.insert(id, top);
        match self.memo.len() > MOST {
            true => Err(format!("expected at most {MOST} values to be kept, got more").into()),
            false => Ok(()),
        }
    }

    fn long(&mut self, n: u64) -> Outcome<Value> {
        if n > 255 {
            return self.skipped(n);
        }
        let bytes = self.input.take(n)?;
        let fill = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
        if bytes.len() <= 8 {
            let mut all = [fill; 8];
            all[..bytes.len()].copy_from_slice(&bytes);
            return Ok(Value::Int(i64::from_le_bytes(all)));
        }
        self.pickle.make(Node::Long(bytes.into()))
    }

    fn text4(&mut self) -> Outcome<Value> {
        let n = u32::from_le_bytes(self.input.array()?);
        self.unicode(n.into())
    }

    fn unicode(&mut self, n: u64) -> Outcome<Value> {
        let bytes = self.input.take(n)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| "expected text in UTF-8, got other bytes")?;
        self.pickle.add_text(text)
    }

    fn old_text(&mut self, n: u64) -> Outcome<Value> {
        let bytes = self.input.take(n)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.pickle.add_text(text),
            Err(_) => Ok(Value::Opaque),
        }
    }

    fn skipped(&mut self, n: u64) -> Outcome<Value> {
        self.input.skip(n)?;
        Ok(Value::Opaque)
    }

    fn container(&mut self, node: Node) -> Outcome<Value> {
        if let Node::Tuple(items) | Node::List(items) = &node {
            self.pickle.room(items.len())?;
        }
        self.pickle.make(node)
    }

    fn append(&mut self, items: &[Value]) -> Outcome<()> {
        let list = self.top()?;
        self.pickle.room(items.len())?;
        match list {
            Value::Node(id) => match &mut self.pickle.nodes[id as usize] {
                Node::List(list) => {
                    small(list, items.len());
                    list.extend_from_slice(items);
                }
                _ => return Err("expected a list to append to, got something else".into()),
            },
            Value::Opaque => {}
            _ => return Err("expected a list to append to, got something else".into()),
        }
        Ok(())
    }

    /// Sets items of a dict: keys and values in turn.
    fn set(&mut self, dict: Value, items: &[Value]) -> Outcome<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("expected a value for each key, got none for the last".into());
        }
        self.pickle.room(pairs.len())?;
        if pairs.iter().any(|&[key, _]| matches!(self.pickle.node(key), Some(Node::List(_) | Node::Dict(_))))
        {
            return Err("expected keys that do not change, got a list or a dict".into());
        }
        match dict {
            Value::Node(id) => match &mut self.pickle.nodes[id as usize] {
                Node::Dict(dict) => {
                    small(dict, pairs.len());
                    dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                }
                _ => return Err("expected a dict to set items of, got something else".into()),
            },
            Value::Opaque => {}
            _ => return Err("expected a dict to set items of, got something else".into()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Outcome<Value> {
        match (self.pickle.add_text(module)?, self.pickle.add_text(name)?) {
            (Value::Text(module), Value::Text(name)) => self.pickle.make(Node::Global(module, name)),
            _ => Ok(Value::Opaque),
        }
    }

    /// An object of a class, made without its constructor. Of those that are not containers nothing is kept.
    fn object(&mut self, class: Value, args: Value) -> Outcome<Value> {
        let Some((module, name)) = self.pickle.global(class) else {
            return Err("expected a class to make an object of, got something else".into());
        };
        match known(module, name) {
            Some(Known::Dict | Known::Size) => self.call(class, args),
            _ => Ok(Value::Opaque),
        }
    }

    /// What a call of a function or a class returns, for those that are known.
    fn call(&mut self, callable: Value, args: Value) -> Outcome<Value> {
        let Some((module, name)) = self.pickle.global(callable) else {
            return Err("expected the name of a function that is called, got something else".into());
        };
        let what = known(module, name);
        let (module, name) = (module.to_owned(), name.to_owned());
        let wrong = || Fault::from(format!("{}: unexpected arguments", quote(&format!("{module}.{name}"))));
        let Some(args) = self.pickle.tuple(args) else {
            return Err("expected a tuple of arguments, got something else".into());
        };
        // No function that is known has more.
        let args = &args[..args.len().min(8)].to_vec()[..];
        match what {
            None => Err(format!(
                "expected what a state_dict is made of, got a call of {}, which is not made: save \
                 `model.state_dict()` alone",
                quote(&format!("{module}.{name}"))
            )
            .into()),
            Some(Known::Opaque) => Ok(Value::Opaque),
            Some(Known::Size) => match args {
                [] => self.pickle.make(Node::Tuple(Vec::new())),
                // Out of a tuple, or a list in old files.
                &[items] => match self.pickle.node(items) {
                    Some(Node::Tuple(_)) => Ok(items),
                    Some(Node::List(list)) => {
                        let items = list.clone();
                        self.container(Node::Tuple(items))
                    }
                    _ => Err(wrong()),
                },
                _ => Err(wrong()),
            },
            Some(Known::Dict) => {
                // Items are in another dict, or in a list of pairs; a defaultdict names a class before.
                let mut items = Vec::new();
                match args.iter().rev().find_map(|&arg| self.pickle.node(arg)) {
                    Some(Node::Dict(pairs)) => {
                        items.extend(pairs.iter().flat_map(|&(key, value)| [key, value]))
                    }
                    Some(Node::List(pairs)) => {
                        for &pair in pairs {
                            match self.pickle.node(pair) {
                                Some(Node::Tuple(pair) | Node::List(pair)) if pair.len() == 2 => {
                                    items.extend(pair)
                                }
                                _ => return Err(wrong()),
                            }
                        }
                    }
                    _ => {}
                }
                let dict = self.pickle.make(Node::Dict(Vec::new()))?;
                self.set(dict, &items)?;
                Ok(dict)
            }
            // A tensor, whether it requires a gradient, and hooks.
            Some(Known::Parameter) => match args {
                [tensor, _, ..] if matches!(self.pickle.node(*tensor), Some(Node::Tensor(_))) => Ok(*tensor),
                _ => Err(wrong()),
            },
            // A function of the family, a class, and the arguments of the function.
            Some(Known::OfType) => match *args {
                [function, class, inner, ..] => {
                    let tensor = |value: Value| {
                        let global = self.pickle.global(value);
                        let known = global.and_then(|(module, name)| known(module, name));
                        known.is_some_and(|known| matches!(known, Known::Tensor(_) | Known::Parameter))
                    };
                    let class = self.pickle.global(class);
                    let plain = matches!(
                        class,
                        Some(
                            ("torch" | "torch._tensor", "Tensor")
                                | ("torch.nn.parameter", "Parameter" | "Buffer")
                        )
                    );
                    if plain && tensor(function) { self.call(function, inner) } else { Err(wrong()) }
                }
                _ => Err(wrong()),
            },
            Some(Known::Tensor(version)) => {
                let &[storage, Value::Int(offset), Value::Node(size), Value::Node(stride), ..] = args else {
                    return Err(wrong());
                };
                let Some(Node::Storage(storage)) = self.pickle.node(storage) else { return Err(wrong()) };
                let storage = **storage;
                let dtype = match (version, storage.dtype) {
                    (3, _) => args
                        .get(6)
                        .and_then(|&dtype| self.pickle.global(dtype))
                        .and_then(|(module, name)| (module == "torch").then(|| dtype_named(name)).flatten()),
                    (_, dtype) => dtype,
                };
                let dtype = dtype.ok_or("expected a tensor of a type that is known, got another")?;
                let lengths = [size, stride].map(|tuple| self.axes(tuple));
                let [Some(n), Some(steps)] = lengths else {
                    return Err("expected at most 64 sizes and strides from 0 on, got others".into());
                };
                if n != steps {
                    return Err(format!("expected as many strides as axes, got {steps} and {n}").into());
                }
                let offset = u64::try_from(offset)
                    .map_err(|_| format!("expected an offset from 0 on, got {offset}"))?;
                self.pickle.make(Node::Tensor(Box::new(Tensor { storage, dtype, offset, size, stride })))
            }
        }
    }

    /// How long a tuple is, if it consists of whole numbers from 0 on.
    fn axes(&self, tuple: u32) -> Option<usize> {
        let items = self.pickle.tuple(Value::Node(tuple)).filter(|items| items.len() <= MOST_AXES)?;
        items.iter().all(|item| matches!(item, Value::Int(0..))).then_some(items.len())
    }

    /// A persistent id: `("storage", class, key, device, number of elements)`, in old files with a part of another.
    fn storage(&mut self, id: Value) -> Outcome<Value> {
        let wrong = || Fault::from("expected the persistent id of a storage, got something else");
        let items = self.pickle.tuple(id).ok_or_else(wrong)?;
        let &[Value::Text(kind), class, Value::Text(key), _, Value::Int(count), ref rest @ ..] = items else {
            return Err(wrong());
        };
        let Some((module, name)) = self.pickle.global(class) else { return Err(wrong()) };
        if self.pickle.text(kind) != "storage" || !["torch", "torch.storage", "torch.cuda"].contains(&module)
        {
            return Err(wrong());
        }
        let dtype = match name {
            "UntypedStorage" => None,
            _ => match storage_named(name) {
                Some(dtype) => Some(dtype),
                None => {
                    return Err(
                        format!("expected a storage of a type that is known, got {}", quote(name)).into()
                    );
                }
            },
        };
        let count =
            u64::try_from(count).map_err(|_| format!("expected a storage of some elements, got {count}"))?;
        let part = match rest {
            [] | [Value::None] => None,
            &[view] => match self.pickle.tuple(view) {
                Some(&[_, Value::Int(begin @ 0..), Value::Int(length @ 0..)]) => {
                    let (begin, length) = (begin as u64, length as u64);
                    if begin + length > count {
                        return Err("expected a part of a storage within it, got one beyond".into());
                    }
                    Some((begin, length))
                }
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        self.pickle.make(Node::Storage(Box::new(Storage { dtype, key, count, part })))
    }
}

/// Makes room for the first items of a container and no more: most get none after them.
fn small<V>(items: &mut Vec<V>, more: usize) {
    if items.is_empty() {
        items.reserve_exact(more);
    }
}

fn underflow() -> Fault {
    "expected a value on the stack, got none".into()
}

fn whole(text: &str) -> Outcome<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    match text.parse() {
        Ok(n) => Ok(Value::Int(n)),
        // Beyond 64 bits.
        Err(_) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(Value::Opaque),
        Err(_) => Err(format!("expected a whole number, got {}", quote(text)).into()),
    }
}

fn number(text: &str) -> Outcome<u32> {
    text.trim().parse().map_err(|_| format!("expected a number of a value, got {}", quote(text)).into())
}

/// The names that are known.
enum Known {
    /// A tensor, in three forms.
    Tensor(u8),
    Parameter,
    OfType,
    Dict,
    Size,
    /// What stands beside tensors, and is left out.
    Opaque,
}

fn known(module: &str, name: &str) -> Option<Known> {
    Some(match (module, name) {
        ("torch._utils", "_rebuild_tensor") => Known::Tensor(1),
        ("torch._utils", "_rebuild_tensor_v2") => Known::Tensor(2),
        ("torch._utils", "_rebuild_tensor_v3") => Known::Tensor(3),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Known::Parameter,
        ("torch._tensor", "_rebuild_from_type_v2") => Known::OfType,
        ("collections", "OrderedDict" | "defaultdict" | "Counter") | ("__builtin__" | "builtins", "dict") => {
            Known::Dict
        }
        ("torch", "Size") => Known::Size,
        ("torch", "device")
        | ("_codecs", "encode")
        | (
            "__builtin__" | "builtins",
            "set" | "frozenset" | "bytearray" | "bytes" | "complex" | "slice" | "range" | "xrange",
        )
        | ("collections", "deque")
        | ("numpy", "dtype" | "ndarray")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
        | ("datetime", "datetime" | "date" | "time" | "timedelta" | "timezone")
        | (
            "pathlib" | "pathlib._local",
            "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath" | "PureWindowsPath",
        )
        | ("uuid", "UUID")
        | ("decimal", "Decimal")
        | ("fractions", "Fraction")
        | ("argparse", "Namespace")
        | ("types", "SimpleNamespace") => Known::Opaque,
        _ => return None,
    })
}

fn storage_named(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        "ComplexFloatStorage" => Dtype::C64,
        _ => return None,
    })
}

fn dtype_named(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" | "double" => Dtype::F64,
        "float32" | "float" => Dtype::F32,
        "float16" | "half" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "float8_e4m3fnuz" => Dtype::F8_E4M3FNUZ,
        "float8_e5m2fnuz" => Dtype::F8_E5M2FNUZ,
        "float8_e8m0fnu" => Dtype::F8_E8M0,
        "int64" | "long" => Dtype::I64,
        "int32" | "int" => Dtype::I32,
        "int16" | "short" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        "complex64" | "cfloat" => Dtype::C64,
        _ => return None,
    })
}
