"""A module as its statements count: without docstrings, comments, annotations and import lines, and what each names.

The form is our own and not `ast.dump`'s, which differs between versions of Python.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What is left of a module beside its definitions: statements that run when it is loaded.
STATEMENTS = "<statements>"
LOCALS = "<locals>"
# Fields without a meaning for what is computed; what only newer versions of Python have is among them.
SKIPPED = frozenset({"annotation", "returns", "ctx", "kind", "type_comment", "type_params", "simple"})

Import = tuple[str, str]
"""Where an import leads: a module and a name in it, or a module and nothing."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Reference:
    """A name with its attributes that a definition does not bind by itself; `imported` if an import within it does."""

    names: tuple[str, ...]
    imported: Import | None = None


@dataclass(frozen=True)
class Statement:
    """A statement as it counts: the digest of its tree with a blank for each reference, and these in order."""

    shape: str
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class Module:
    """A parsed module: the statements that make each name, and where the names it imports lead.

    A function within a function is a definition by its qualified name; `undecorated` are the functions once more
    without their decorators, where they have some, and `handed_on` what is imported to be had from here.
    """

    name: str
    definitions: Mapping[str, Sequence[Statement]]
    undecorated: Mapping[str, Statement]
    imports: Mapping[str, Import]
    handed_on: Sequence[str]


def parse(name: str, source: str, *, is_package: bool) -> Module:
    """The module of that dotted name. Raises SyntaxError for what is no Python."""
    return _Parser(name if is_package else name.rpartition(".")[0]).module(name, ast.parse(source))


@dataclass(eq=False)
class _Scope:
    """The names that a function, a class or a comprehension binds; None above is the module."""

    above: _Scope | None
    kind: str
    path: str = ""
    bound: dict[str, Import | str | None] = field(default_factory=dict)
    module_names: set[str] = field(default_factory=set)

    def bind(self, name: str, leads: Import | str | None = None) -> None:
        if name not in self.module_names:
            self.bound[name] = leads or self.bound.get(name)

    def find(self, name: str) -> _Scope | None:
        """The scope that binds a name used here; what a class binds is seen in its own body alone."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.module_names:
                return None
            if name in scope.bound and (scope is self or scope.kind != "class"):
                return scope
            scope = scope.above
        return None


@dataclass(frozen=True)
class _Named:
    """A name with attributes as it is met, to be looked up when the scope knows all its names."""

    scope: _Scope
    names: tuple[str, ...]


class _Parser:
    def __init__(self, package: str) -> None:
        self._package = package
        self._out: list[str | _Named] = []
        self._writers: dict[type, Callable[[Any, _Scope], None]] = {}
        self._nested: list[tuple[str, _Function, _Scope]] = []

    def module(self, name: str, tree: ast.Module) -> Module:
        """All definitions of a module; a statement that makes or changes several names belongs to each."""
        definitions: dict[str, list[Statement]] = {}
        undecorated: dict[str, Statement] = {}
        imports: dict[str, Import] = {}
        for node in tree.body:
            imports.update(self._imports(node))
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom) or _is_wording(node) or _is_for_types(node):
                continue
            self._nested = []
            statement = self._statement(node, None)
            if isinstance(node, FUNCTIONS):
                functions: list[tuple[str, _Function, _Scope | None]] = [(node.name, node, None), *self._nested]
                for path, function, scope in functions:
                    definitions.setdefault(path, []).append(self._statement(function, scope) if scope else statement)
                    if function.decorator_list:
                        undecorated[path] = self._statement(_undecorated(function), scope)
                continue
            for bound in [bound for bound in _bound(node) if bound not in imports] or (STATEMENTS,):
                definitions.setdefault(bound, []).append(statement)
        definitions.pop("__all__", None)
        handed_on = [named for node in tree.body for named in _offered(node) if named in imports]
        return Module(name, definitions, undecorated, imports, handed_on)

    def _imports(self, node: ast.AST) -> Iterator[tuple[str, Import]]:
        """What a statement imports into the module; for types alone too, since a `cast` may name it."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield (alias.asname, (alias.name, "")) if alias.asname else (first, (first, ""))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = self._package.split(".")[: len(self._package.split(".")) - node.level + 1]
                module = ".".join([*above, *([module] if module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, (module, alias.name)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for below in ast.iter_child_nodes(node):
                yield from self._imports(below)

    def _statement(self, node: ast.AST, above: _Scope | None) -> Statement:
        """A statement in its scope: what it does not bind itself becomes a reference."""
        out: list[str | _Named] = []
        self._out = out
        top = above or _Scope(None, "module")
        self._write(node, top)
        parts = [self._reference(part, top) if isinstance(part, _Named) else part for part in out]
        shape = "\0".join("@" if isinstance(part, Reference) else part for part in parts)
        references = tuple(part for part in parts if isinstance(part, Reference))
        return Statement(hashlib.sha256(shape.encode()).hexdigest()[:32], references)

    def _reference(self, named: _Named, top: _Scope) -> Reference | str:
        """Where a name leads outside the statement, or its text if the statement binds it or nobody knows."""
        scope = named.scope.find(named.names[0])
        if scope is None or (scope is top and scope.kind == "module"):
            return Reference(named.names)
        leads = scope.bound[named.names[0]]
        if isinstance(leads, tuple):
            return Reference(named.names[1:], leads)
        if isinstance(leads, str) and (scope is top or not _within(scope, top)):
            return Reference((leads, *named.names[1:]))
        return ".".join(named.names)

    def _write(self, node: ast.AST, scope: _Scope) -> None:
        kind = type(node)
        write = self._writers.get(kind)
        if write is None:
            write = self._writers[kind] = getattr(self, f"_write_{kind.__name__}", self._write_fields)
        write(node, scope)

    def _write_fields(self, node: ast.AST, scope: _Scope) -> None:
        """A node as its kind and the fields that are not empty."""
        out = self._out
        out.append(type(node).__name__)
        for name in node._fields:
            if name in SKIPPED:
                continue
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                out.append(name)
                self._write(value, scope)
            elif isinstance(value, list):
                if value:
                    out.append(f"{name} [")
                    for item in value:
                        if isinstance(item, ast.AST):
                            self._write(item, scope)
                        else:
                            out.append(ascii(item))
                    out.append("]")
            elif value is not None:
                out.append(f"{name} {value!a}")
        out.append(";")

    def _write_Expr(self, node: ast.Expr, scope: _Scope) -> None:
        if not _is_wording(node):
            self._write_fields(node, scope)

    def _write_Pass(self, node: ast.Pass, scope: _Scope) -> None:
        """Nothing: it stands where a docstring may have stood."""

    def _write_Constant(self, node: ast.Constant, scope: _Scope) -> None:
        self._out.append(f"{type(node.value).__name__} {node.value!a}")

    def _write_Name(self, node: ast.Name, scope: _Scope) -> None:
        if not isinstance(node.ctx, ast.Load):
            scope.bind(node.id)
        self._out.append(_Named(scope, (node.id,)))

    def _write_Attribute(self, node: ast.Attribute, scope: _Scope) -> None:
        names: list[str] = [node.attr]
        below = node.value
        while isinstance(below, ast.Attribute):
            names.append(below.attr)
            below = below.value
        if isinstance(below, ast.Name):
            self._out.append(_Named(scope, (below.id, *reversed(names))))
        else:
            self._write_fields(node, scope)

    def _write_NamedExpr(self, node: ast.NamedExpr, scope: _Scope) -> None:
        holder = scope
        while holder.kind == "comprehension" and holder.above is not None:
            holder = holder.above
        holder.bind(node.target.id)
        self._out += ["NamedExpr", _Named(scope, (node.target.id,))]
        self._write(node.value, scope)

    def _write_FunctionDef(self, node: _Function, scope: _Scope) -> None:
        path = f"{scope.path}.{LOCALS}.{node.name}" if scope.kind == "function" else node.name
        if scope.kind == "function":
            scope.bind(node.name, path)
            self._nested.append((path, node, scope))
        elif scope.kind == "class":
            scope.bind(node.name)
        self._out += [type(node).__name__, node.name]
        for decorator in node.decorator_list:
            self._write(decorator, scope)
        self._write_body(node.args, node.body, _Scope(scope, "function", path), scope)

    _write_AsyncFunctionDef = _write_FunctionDef

    def _write_Lambda(self, node: ast.Lambda, scope: _Scope) -> None:
        self._out.append("Lambda")
        self._write_body(node.args, [node.body], _Scope(scope, "lambda"), scope)

    def _write_body(self, args: ast.arguments, body: Sequence[ast.AST], inner: _Scope, outer: _Scope) -> None:
        """Arguments and body in the function's own scope; the defaults are those of the scope around it."""
        for kind in ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg"):
            arguments = getattr(args, kind)
            for arg in arguments if isinstance(arguments, list) else [arguments] if arguments else []:
                inner.bind(arg.arg)
                self._out.append(f"{kind} {arg.arg}")
        for default in (*args.defaults, *args.kw_defaults):
            self._out.append("default")
            if default is not None:
                self._write(default, outer)
        for statement in body:
            self._write(statement, inner)
        self._out.append(";")

    def _write_ClassDef(self, node: ast.ClassDef, scope: _Scope) -> None:
        if scope.kind != "module":
            scope.bind(node.name)
        self._out += ["ClassDef", node.name]
        for outer in (*node.decorator_list, *node.bases, *node.keywords):
            self._write(outer, scope)
        inner = _Scope(scope, "class")
        for statement in node.body:
            self._write(statement, inner)
        self._out.append(";")

    def _write_comprehension_of(self, node: ast.AST, scope: _Scope) -> None:
        """The first of what it runs over is looked up around it."""
        inner = _Scope(scope, "comprehension")
        self._out.append(type(node).__name__)
        for place, generator in enumerate(getattr(node, "generators", ())):
            self._out.append("async for" if generator.is_async else "for")
            self._write(generator.target, inner)
            self._write(generator.iter, inner if place else scope)
            for condition in generator.ifs:
                self._out.append("if")
                self._write(condition, inner)
        for name in ("elt", "key", "value"):
            if (value := getattr(node, name, None)) is not None:
                self._write(value, inner)
        self._out.append(";")

    _write_ListComp = _write_SetComp = _write_DictComp = _write_GeneratorExp = _write_comprehension_of

    def _write_ExceptHandler(self, node: ast.ExceptHandler, scope: _Scope) -> None:
        if node.name:
            scope.bind(node.name)
        self._write_fields(node, scope)

    def _write_MatchAs(self, node: ast.MatchAs | ast.MatchStar, scope: _Scope) -> None:
        if node.name:
            scope.bind(node.name)
        self._write_fields(node, scope)

    _write_MatchStar = _write_MatchAs

    def _write_MatchMapping(self, node: ast.MatchMapping, scope: _Scope) -> None:
        if node.rest:
            scope.bind(node.rest)
        self._write_fields(node, scope)

    def _write_AnnAssign(self, node: ast.AnnAssign, scope: _Scope) -> None:
        """As without the annotation, but for a class, in which it makes a field."""
        if scope.kind == "class":
            self._write_fields(node, scope)
        elif node.value is not None:
            self._write(ast.Assign(targets=[node.target], value=node.value), scope)
        elif isinstance(node.target, ast.Name):
            scope.bind(node.target.id)

    def _write_Global(self, node: ast.Global, scope: _Scope) -> None:
        scope.module_names.update(node.names)
        for name in node.names:
            scope.bound.pop(name, None)

    def _write_Nonlocal(self, node: ast.Nonlocal, scope: _Scope) -> None:
        for name in node.names:
            self._out.append(f"nonlocal {name}")

    def _write_Import(self, node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
        if scope.kind != "module":
            for name, leads in self._imports(node):
                scope.bind(name, leads)

    _write_ImportFrom = _write_Import


def _within(scope: _Scope, top: _Scope) -> bool:
    """Whether a scope is below the one a statement stands in."""
    at: _Scope | None = scope.above
    while at is not None and at is not top:
        at = at.above
    return at is top


def _undecorated(node: _Function) -> ast.AST:
    bare = type(node)(**{name: getattr(node, name) for name in node._fields})
    bare.decorator_list = []
    return bare


def _is_wording(node: ast.AST) -> bool:
    """A text that stands for itself: a docstring, of whatever."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_for_types(node: ast.AST) -> bool:
    """What is there for the type checker alone."""
    return isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING" and not node.orelse


def _offered(node: ast.AST) -> list[str]:
    """The names in `__all__`, and those that are imported as themselves (`from a import b as b`)."""
    match node:
        case ast.ImportFrom(names=aliases):
            return [alias.name for alias in aliases if alias.asname == alias.name]
        case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names) | ast.Tuple(elts=names)):
            return [name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str)]
    return []


def _bound(node: ast.AST) -> tuple[str, ...]:
    """The names of the module that a statement makes, or whose values it changes."""
    names: dict[str, None] = {}

    def changed(target: ast.AST) -> None:
        while isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
            target = target.value
        if isinstance(target, ast.Name):
            names[target.id] = None
        for below in target.elts if isinstance(target, ast.Tuple | ast.List) else ():
            changed(below)

    def visit(at: ast.AST) -> None:
        match at:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names[name] = None
                return
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                for target in targets:
                    changed(target)
            case ast.AnnAssign(target=target) | ast.AugAssign(target=target) | ast.For(target=target):
                changed(target)
            case ast.withitem(optional_vars=ast.AST() as target):
                changed(target)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
                names[name] = None
            case ast.expr():
                return
        for below in ast.iter_child_nodes(at):
            visit(below)

    visit(node)
    return tuple(names)
