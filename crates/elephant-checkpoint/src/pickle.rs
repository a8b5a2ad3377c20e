//! Parser of Python's pickle format: lists the values that a pickle would build.
//!
//! Every value becomes a [`Node`] in one list and refers to other nodes by index, so that neither cycles nor deep
//! nesting need recursion. A call is recorded as a node and never executed. Only the opcodes that `torch.save` emits
//! with the protocols 2 to 5 are accepted (CPython, `Lib/pickletools.py`); everything else is an error.

use std::collections::HashMap;

use crate::CheckpointError;

/// Largest number of opcodes that are executed; a tensor takes about fifty. Each one adds at most one node and a short
/// list, together about 80 bytes.
const MAX_OPCODES: u64 = 1 << 20;

/// Index of a node in [`Pickle::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u32);

/// A value that the pickle would build.
#[derive(Debug, PartialEq)]
pub(crate) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than eight bytes, two's complement, little endian.
    BigInt(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    /// A class or function, by name.
    Global(&'a str, &'a str),
    /// An object outside the pickle (here: a storage), by its key.
    Persistent(NodeId),
    /// The result of a call that was not executed, with the items that were added to it.
    Call {
        function: NodeId,
        arguments: NodeId,
        items: Vec<(NodeId, NodeId)>,
    },
}

/// A parsed pickle.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: NodeId,
    /// Number of bytes read, including the STOP opcode.
    pub(crate) length: usize,
}

impl<'a> Pickle<'a> {
    /// Parses the pickle at the start of `bytes`. `allowed` decides which globals may be named.
    ///
    /// # Errors
    /// [`CheckpointError::ForeignCode`] for any other global, `Damaged` for a truncated or inconsistent pickle,
    /// `Unsupported` for other opcodes, `TooMany` for too many opcodes.
    pub(crate) fn parse(bytes: &'a [u8], allowed: fn(&str, &str) -> bool) -> Result<Self, CheckpointError> {
        let mut machine = Machine {
            input: Input { bytes, at: 0 },
            allowed,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine.run()?;
        Ok(Self { nodes: machine.nodes, root, length: machine.input.at })
    }

    /// The id of the top-level value.
    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    /// The node with this id.
    pub(crate) fn node(&self, id: NodeId) -> &Node<'a> {
        &self.nodes[id.0 as usize]
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], CheckpointError> {
        let taken = self.at.checked_add(length).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| CheckpointError::damaged("the pickle is incomplete"))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let taken = self.take(N)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    fn u8(&mut self) -> Result<u8, CheckpointError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, CheckpointError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A length of `width` bytes, followed by that many bytes.
    fn sized(&mut self, width: usize) -> Result<&'a [u8], CheckpointError> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.take(width)?);
        self.take(usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX))
    }

    fn text(&mut self, width: usize) -> Result<&'a str, CheckpointError> {
        utf8(self.sized(width)?)
    }

    /// Text up to the next line feed, which is not included.
    fn line(&mut self) -> Result<&'a str, CheckpointError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| CheckpointError::damaged("the pickle is incomplete"))?;
        let line = self.take(length)?;
        self.at += 1;
        utf8(line)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, CheckpointError> {
    str::from_utf8(bytes).map_err(|_| CheckpointError::damaged("a name in the pickle is not UTF-8"))
}

struct Machine<'a> {
    input: Input<'a>,
    allowed: fn(&str, &str) -> bool,
    nodes: Vec<Node<'a>>,
    stack: Vec<NodeId>,
    /// Heights of the stack at the MARK opcodes that are still open.
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<NodeId, CheckpointError> {
        for _ in 0..MAX_OPCODES {
            match self.input.u8()? {
                b'.' => return self.pop(), // STOP
                0x80 => self.protocol()?,
                0x95 => drop(self.input.array::<8>()?), // FRAME: a hint for readers of streams
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b'K' => self.byte_integer()?,
                b'M' => self.short_integer()?,
                b'J' => self.integer()?,
                0x8a => self.long_integer(1)?,
                0x8b => self.long_integer(4)?,
                b'G' => self.float()?,
                0x8c | b'U' => self.text(1)?, // U is what Python 2 wrote for names
                b'X' => self.text(4)?,
                0x8d => self.text(8)?,
                b'C' => self.bytes(1)?,
                b'B' => self.bytes(4)?,
                0x8e => self.bytes(8)?,
                b'c' => self.global()?,
                0x93 => self.global_from_stack()?,
                b'(' => self.marks.push(self.stack.len()),
                b')' => self.push(Node::Tuple(Vec::new())),
                0x85 => self.tuple_of(1)?,
                0x86 => self.tuple_of(2)?,
                0x87 => self.tuple_of(3)?,
                b't' => self.tuple()?,
                b']' => self.push(Node::List(Vec::new())),
                b'a' => self.append()?,
                b'e' => self.appends()?,
                b'}' => self.push(Node::Dict(Vec::new())),
                b's' => self.set_item()?,
                b'u' => self.set_items()?,
                b'R' | 0x81 => self.call()?, // REDUCE and NEWOBJ differ only in the way Python would call
                b'b' => drop(self.pop()?),   // BUILD: attributes such as `_metadata` are not tensors
                b'Q' => self.persistent()?,
                b'q' => self.input.u8().and_then(|key| self.remember(key.into()))?,
                b'r' => self.input.u32().and_then(|key| self.remember(key))?,
                0x94 => self.remember(self.memo.len() as u32)?, // MEMOIZE
                b'h' => self.input.u8().and_then(|key| self.recall(key.into()))?,
                b'j' => self.input.u32().and_then(|key| self.recall(key))?,
                opcode => return Err(CheckpointError::unsupported(format!("pickle opcode {opcode:#04x}"))),
            }
        }
        Err(CheckpointError::TooMany { what: "pickle opcodes", limit: MAX_OPCODES })
    }

    fn push(&mut self, node: Node<'a>) {
        // Every node takes at least one byte of input, which is far shorter than 4 GiB.
        self.stack.push(NodeId(self.nodes.len() as u32));
        self.nodes.push(node);
    }

    /// Takes the top of the stack, which must be above the last mark.
    fn pop(&mut self) -> Result<NodeId, CheckpointError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(CheckpointError::damaged("the pickle pops more values than it has pushed"));
        }
        self.stack.pop().ok_or_else(|| CheckpointError::damaged("the pickle pops more values than it has pushed"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<NodeId>, CheckpointError> {
        let mark =
            self.marks.pop().ok_or_else(|| CheckpointError::damaged("the pickle has no mark for this opcode"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Node<'a>, CheckpointError> {
        let id = self.pop()?;
        self.stack.push(id);
        Ok(&mut self.nodes[id.0 as usize])
    }

    fn protocol(&mut self) -> Result<(), CheckpointError> {
        match self.input.u8()? {
            2..=5 => Ok(()),
            other => Err(CheckpointError::unsupported(format!("a pickle of protocol {other}"))),
        }
    }

    fn byte_integer(&mut self) -> Result<(), CheckpointError> {
        let value = self.input.u8()?;
        self.push(Node::Int(value.into()));
        Ok(())
    }

    fn short_integer(&mut self) -> Result<(), CheckpointError> {
        let value = u16::from_le_bytes(self.input.array()?);
        self.push(Node::Int(value.into()));
        Ok(())
    }

    fn integer(&mut self) -> Result<(), CheckpointError> {
        let value = i32::from_le_bytes(self.input.array()?);
        self.push(Node::Int(value.into()));
        Ok(())
    }

    fn long_integer(&mut self, width: usize) -> Result<(), CheckpointError> {
        let bytes = self.input.sized(width)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        if bytes.len() > 8 {
            self.push(Node::BigInt(bytes));
        } else {
            let mut extended = if negative { [0xff; 8] } else { [0; 8] };
            extended[..bytes.len()].copy_from_slice(bytes);
            self.push(Node::Int(i64::from_le_bytes(extended)));
        }
        Ok(())
    }

    fn float(&mut self) -> Result<(), CheckpointError> {
        let value = f64::from_be_bytes(self.input.array()?);
        self.push(Node::Float(value));
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), CheckpointError> {
        let text = self.input.text(width)?;
        self.push(Node::Text(text));
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> Result<(), CheckpointError> {
        let bytes = self.input.sized(width)?;
        self.push(Node::Bytes(bytes));
        Ok(())
    }

    fn global(&mut self) -> Result<(), CheckpointError> {
        let module = self.input.line()?;
        let name = self.input.line()?;
        self.push_global(module, name)
    }

    fn global_from_stack(&mut self) -> Result<(), CheckpointError> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (&self.nodes[module.0 as usize], &self.nodes[name.0 as usize]) {
            (&Node::Text(module), &Node::Text(name)) => self.push_global(module, name),
            _ => Err(CheckpointError::damaged("the pickle names a global by something that is not text")),
        }
    }

    fn push_global(&mut self, module: &'a str, name: &'a str) -> Result<(), CheckpointError> {
        if !(self.allowed)(module, name) {
            return Err(CheckpointError::ForeignCode { global: shortened(&format!("{module}.{name}")) });
        }
        self.push(Node::Global(module, name));
        Ok(())
    }

    fn tuple_of(&mut self, length: usize) -> Result<(), CheckpointError> {
        let mut items = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn tuple(&mut self) -> Result<(), CheckpointError> {
        let items = self.pop_to_mark()?;
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn append(&mut self) -> Result<(), CheckpointError> {
        let item = self.pop()?;
        self.extend_list(vec![item])
    }

    fn appends(&mut self) -> Result<(), CheckpointError> {
        let items = self.pop_to_mark()?;
        self.extend_list(items)
    }

    fn extend_list(&mut self, items: Vec<NodeId>) -> Result<(), CheckpointError> {
        match self.top()? {
            Node::List(list) => list.extend(items),
            _ => return Err(CheckpointError::damaged("the pickle appends to something that is not a list")),
        }
        Ok(())
    }

    fn set_item(&mut self) -> Result<(), CheckpointError> {
        let (value, key) = (self.pop()?, self.pop()?);
        self.extend_dict([(key, value)])
    }

    fn set_items(&mut self) -> Result<(), CheckpointError> {
        let items = self.pop_to_mark()?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(CheckpointError::damaged("the pickle has a key without a value"));
        }
        self.extend_dict(pairs.iter().map(|&[key, value]| (key, value)))
    }

    fn extend_dict(&mut self, pairs: impl IntoIterator<Item = (NodeId, NodeId)>) -> Result<(), CheckpointError> {
        match self.top()? {
            Node::Dict(items) | Node::Call { items, .. } => items.extend(pairs),
            _ => return Err(CheckpointError::damaged("the pickle sets items of something that is not a dict")),
        }
        Ok(())
    }

    fn call(&mut self) -> Result<(), CheckpointError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        self.push(Node::Call { function, arguments, items: Vec::new() });
        Ok(())
    }

    fn persistent(&mut self) -> Result<(), CheckpointError> {
        let key = self.pop()?;
        self.push(Node::Persistent(key));
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), CheckpointError> {
        let id = self.pop()?;
        self.stack.push(id);
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), CheckpointError> {
        let id = self
            .memo
            .get(&key)
            .ok_or_else(|| CheckpointError::damaged("the pickle refers to a value it did not store"))?;
        self.stack.push(*id);
        Ok(())
    }
}

/// A name from the file, shortened for a message.
pub(crate) fn shortened(name: &str) -> String {
    let mut shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Pickle<'_>, CheckpointError> {
        Pickle::parse(bytes, |module, _| module == "collections")
    }

    #[test]
    fn a_call_is_recorded_with_its_items() {
        // pickle.dumps(OrderedDict(a=1), protocol=2)
        let bytes = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00aq\x02K\x01s.";
        let pickle = parse(bytes).unwrap();
        let Node::Call { items, .. } = pickle.node(pickle.root()) else { panic!("not a call") };
        assert_eq!(pickle.node(items[0].0), &Node::Text("a"));
        assert_eq!(pickle.node(items[0].1), &Node::Int(1));
        assert_eq!(pickle.length, bytes.len());
    }

    #[test]
    fn calls_into_the_system_are_refused_by_name() {
        // The pickle of an object whose __reduce__ returns (os.system, ("id",)), protocols 2 and 4.
        let old = b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.";
        let new = b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.";
        for bytes in [&old[..], &new[..]] {
            let error = parse(bytes).unwrap_err();
            assert!(matches!(&error, CheckpointError::ForeignCode { global } if global == "posix.system"), "{error}");
        }
    }

    #[test]
    fn integers_of_every_width() {
        let cases: [(&[u8], i64); 6] = [
            (b"K\xff.", 255),
            (b"M\xff\xff.", 65535),
            (b"J\xff\xff\xff\xff.", -1),
            (b"\x8a\x00.", 0),
            (b"\x8a\x02\x00\x80.", -32768),
            (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", i64::MAX),
        ];
        for (bytes, expected) in cases {
            let pickle = parse(bytes).unwrap();
            assert_eq!(pickle.node(pickle.root()), &Node::Int(expected));
        }
    }

    #[test]
    fn a_million_nested_tuples_need_no_recursion() {
        let mut bytes = vec![b')'];
        bytes.extend(std::iter::repeat_n(0x85, 1_000_000));
        bytes.push(b'.');
        drop(parse(&bytes).unwrap());
    }

    #[test]
    fn a_list_may_contain_itself() {
        let pickle = parse(b"]q\x00h\x00a.").unwrap();
        assert_eq!(pickle.node(pickle.root()), &Node::List(vec![pickle.root()]));
    }

    #[test]
    fn truncation_anywhere_is_an_error() {
        let bytes = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00aq\x02K\x01s.";
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_opcodes_give_a_value_or_an_error(
            opcodes in proptest::collection::vec(proptest::sample::select(&b"()]}NtaesubRQq\x00h\x00r\x00\x00\x00\x00\x85\x86\x87\x81\x94\x88K\x07X\x01\x00\x00\x00a"[..]), 0..200)
        ) {
            let mut bytes = opcodes;
            bytes.push(b'.');
            let _ = parse(&bytes);
        }
    }
}
