//! Extracts from a parsed pickle the tensors' names and the positions of their elements in storages.

use std::collections::HashSet;

use crate::{
    CheckpointError, Dtype,
    pickle::{Node, NodeId, Pickle, shortened},
    views::View,
};

/// Tensors by name, not yet read, in order. The texts are borrowed from the pickle, which may refer to one of them a
/// million times.
pub(crate) type Views<'a> = Vec<(&'a str, View<'a>)>;

/// Largest number of tensors in a checkpoint, in all members together; a U-Net has a few hundred.
const MAX_TENSORS: usize = 100_000;
/// Longest key of a storage, in bytes. The key is the name of an entry in the archive, usually a number.
const MAX_KEY_BYTES: usize = 255;
/// Largest number of axes of a tensor.
const MAX_AXES: usize = 16;

/// Whether a global is needed to describe named tensors. The names are only compared; nothing is imported or called.
pub(crate) fn is_known_global(module: &str, name: &str) -> bool {
    match module {
        "collections" => name == "OrderedDict",
        "torch._utils" => matches!(name, "_rebuild_tensor_v2" | "_rebuild_parameter"),
        "torch" => storage_dtype(name).is_some(),
        _ => false,
    }
}

fn storage_dtype(class: &str) -> Option<Dtype> {
    Some(match class {
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        _ => return None,
    })
}

/// The members of a checkpoint: one state dict, or a list of them. A pickle may refer to the same value many times, so
/// the results are counted before they are created.
pub(crate) fn members<'a>(pickle: &Pickle<'a>) -> Result<Vec<Views<'a>>, CheckpointError> {
    let root = pickle.root();
    let ids = match pickle.node(root) {
        Node::List(items) | Node::Tuple(items) => items.as_slice(),
        _ => &[root],
    };
    if ids.is_empty() {
        return Err(CheckpointError::unsupported("an empty list"));
    }
    let mut seen = HashSet::new();
    let mut tensors = 0;
    let mut members = Vec::new();
    for &id in ids {
        let items = state_dict(pickle, id)?;
        if !seen.insert(id) {
            return Err(CheckpointError::unsupported("the same state dict twice in a list"));
        }
        tensors += items.len();
        if tensors > MAX_TENSORS {
            return Err(CheckpointError::TooMany { what: "tensors", limit: MAX_TENSORS as u64 });
        }
        members.push(items.iter().map(|&(key, value)| named_tensor(pickle, key, value)).collect::<Result<_, _>>()?);
    }
    Ok(members)
}

/// Names and tensors of a state dict.
fn state_dict<'p>(pickle: &'p Pickle<'_>, id: NodeId) -> Result<&'p [(NodeId, NodeId)], CheckpointError> {
    let items = dict_items(pickle, id).ok_or_else(|| {
        CheckpointError::unsupported(format!("{} where a state dict is expected", describe(pickle, id)))
    })?;
    if items.is_empty() {
        return Err(CheckpointError::unsupported("a dict without any tensor"));
    }
    Ok(items)
}

/// The items of a dict, or of the `OrderedDict` that `state_dict()` returns.
fn dict_items<'p>(pickle: &'p Pickle<'_>, id: NodeId) -> Option<&'p [(NodeId, NodeId)]> {
    match pickle.node(id) {
        Node::Dict(items) => Some(items),
        Node::Call { function, items, .. } if is_global(pickle, *function, "collections", "OrderedDict") => Some(items),
        _ => None,
    }
}

fn named_tensor<'a>(pickle: &Pickle<'a>, key: NodeId, value: NodeId) -> Result<(&'a str, View<'a>), CheckpointError> {
    let &Node::Text(name) = pickle.node(key) else {
        return Err(CheckpointError::unsupported("a dict whose keys are not names"));
    };
    let arguments = tensor_arguments(pickle, value).ok_or_else(|| {
        let found = describe(pickle, value);
        CheckpointError::unsupported(format!("{found} as {:?} where a tensor is expected", shortened(name)))
    })?;
    let view = view(pickle, arguments).ok_or_else(|| {
        CheckpointError::damaged(format!("the description of the tensor {:?} is invalid", shortened(name)))
    })?;
    Ok((name, view))
}

/// Arguments of the call that rebuilds a tensor; the call for a parameter wraps that call.
fn tensor_arguments<'p>(pickle: &'p Pickle<'_>, id: NodeId) -> Option<&'p [NodeId]> {
    let (function, arguments) = call(pickle, id)?;
    if is_global(pickle, function, "torch._utils", "_rebuild_tensor_v2") {
        return Some(arguments);
    }
    if !is_global(pickle, function, "torch._utils", "_rebuild_parameter") {
        return None;
    }
    let (function, arguments) = call(pickle, *arguments.first()?)?;
    is_global(pickle, function, "torch._utils", "_rebuild_tensor_v2").then_some(arguments)
}

/// Arguments (storage, offset, shape, strides, …) of `torch._utils._rebuild_tensor_v2`.
fn view<'a>(pickle: &Pickle<'a>, arguments: &[NodeId]) -> Option<View<'a>> {
    let &[storage, offset, shape, strides, ..] = arguments else { return None };
    let Node::Persistent(key) = pickle.node(storage) else { return None };
    // ("storage", class, key, location, elements[, view]); the location (cpu, cuda:0) does not matter here.
    let &[kind, class, storage_key, _, elements, ref rest @ ..] = tuple(pickle, *key)? else { return None };
    let is_whole = rest.iter().all(|&id| matches!(pickle.node(id), Node::None));
    if !matches!(pickle.node(kind), Node::Text("storage")) || !is_whole {
        return None;
    }
    let Node::Global("torch", class) = pickle.node(class) else { return None };
    let &Node::Text(storage_key) = pickle.node(storage_key) else { return None };
    if storage_key.len() > MAX_KEY_BYTES {
        return None;
    }
    Some(View {
        storage_key,
        dtype: storage_dtype(class)?,
        storage_elements: unsigned(pickle, elements)?,
        offset: unsigned(pickle, offset)?,
        shape: axes(pickle, shape)?,
        strides: axes(pickle, strides)?,
    })
}

fn call<'p>(pickle: &'p Pickle<'_>, id: NodeId) -> Option<(NodeId, &'p [NodeId])> {
    match pickle.node(id) {
        Node::Call { function, arguments, .. } => Some((*function, tuple(pickle, *arguments)?)),
        _ => None,
    }
}

fn tuple<'p>(pickle: &'p Pickle<'_>, id: NodeId) -> Option<&'p [NodeId]> {
    match pickle.node(id) {
        Node::Tuple(items) => Some(items),
        _ => None,
    }
}

fn unsigned(pickle: &Pickle<'_>, id: NodeId) -> Option<usize> {
    match pickle.node(id) {
        Node::Int(value) => usize::try_from(*value).ok(),
        _ => None,
    }
}

/// One number per axis.
fn axes(pickle: &Pickle<'_>, id: NodeId) -> Option<Vec<usize>> {
    let items = tuple(pickle, id).filter(|items| items.len() <= MAX_AXES)?;
    items.iter().map(|&item| unsigned(pickle, item)).collect()
}

fn is_global(pickle: &Pickle<'_>, id: NodeId, module: &str, name: &str) -> bool {
    matches!(pickle.node(id), Node::Global(found_module, found_name) if *found_module == module && *found_name == name)
}

fn describe(pickle: &Pickle<'_>, id: NodeId) -> &'static str {
    match pickle.node(id) {
        Node::None => "None",
        Node::Bool(_) => "a boolean",
        Node::Int(_) | Node::BigInt(_) => "an integer",
        Node::Float(_) => "a number",
        Node::Text(_) => "text",
        Node::Bytes(_) => "bytes",
        Node::Tuple(_) => "a tuple",
        Node::List(_) => "a list",
        _ if dict_items(pickle, id).is_some() => "a dict",
        Node::Global(..) => "a class",
        Node::Persistent(_) => "a storage",
        Node::Dict(_) | Node::Call { .. } => "an object",
    }
}
