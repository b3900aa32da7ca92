"""Every exception and warning that Braze raises on its own account.

A message answers four questions, in this order: what failed, for which node, where in the user's code,
and what to do about it. Each answer is a field, so that reports can show them apart.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BrazeError",
    "BrazeWarning",
    "CacheError",
    "CodegenError",
    "ConfigError",
    "ExpressionError",
    "ExtensionError",
    "FallbackError",
    "InputMismatchError",
    "InternalError",
    "KeyringError",
    "LLVMError",
    "LinkError",
    "LoweringError",
    "NoWorkersError",
    "PackageError",
    "ParseError",
    "ResultMismatchError",
    "SignatureError",
    "UnserializableError",
    "WorkerError",
]


class BrazeError(Exception):
    """Base of every error that Braze raises.

    ``what`` says what failed; ``node`` names the operator or IR node; ``where`` is the user's ``file:line``
    (with the source text where known); ``hint`` says what to do. A class's own hint is ``default_hint``.
    """

    default_hint: str | None = None

    def __init__(
        self, what: str, *, node: str | None = None, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.node = node
        self.where = where
        self.hint = hint if hint is not None else self.default_hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.node:
            lines.append(f"  node:   {self.node}")
        if self.where:
            lines.append(f"  where:  {self.where}")
        if self.hint:
            lines.append(f"  to do:  {self.hint}")
        return "\n".join(lines)

    def at(self, *, node: str | None = None, where: str | None = None) -> BrazeError:
        """Fill in what is still unknown of the place (what is known is kept) and return this same error, so
        that a caller who knows more can write ``raise error.at(node=...)``."""
        self.node = self.node or node
        self.where = self.where or where
        return self


class Refused(Exception):
    """This cannot be done, because ...: how a function of Braze tells those that called it, which then go on
    in another way. The reason is worded for users: they see it in a warning, a report, or an error made of
    it."""

    @property
    def reason(self) -> str:
        """Why not."""
        return str(self)


class LoweringError(BrazeError):
    """An ATen operator could not be turned into IR. The node falls back to eager; strict mode raises."""

    default_hint = "the operator runs as eager PyTorch would run it; set strict=True to see this as an error"


class CodegenError(BrazeError):
    """No machine code could be generated for a kernel. Its nodes fall back to eager; strict mode raises."""

    default_hint = "the kernel's nodes run as eager PyTorch would run them; BRAZE_DEBUG=<folder> keeps its IR"


class LLVMError(CodegenError):
    """LLVM refused a module: it did not parse, verify, or compile."""

    default_hint = "this is a defect of Braze; BRAZE_DEBUG=<folder> keeps the module's text"


class WorkerError(BrazeError):
    """A worker process (one that runs LLVM, or one that compiles graphs) died, hung, answered rubbish, or
    could not be started."""

    default_hint = "set BRAZE_LLVM_IN_PROCESS=1 to run LLVM inside this process instead"


class NoWorkersError(WorkerError):
    """No worker process can be had, so that none ever had the work."""


class LinkError(BrazeError):
    """Object code could not be linked into the process, most often for a symbol that nobody defines."""


class InputMismatchError(BrazeError, ValueError):
    """A compiled function was called with a tensor that it was not compiled for (dtype, device, rank, sizes,
    strides or alignment), and no guard of the caller's caught it."""

    default_hint = "call the function through torch.compile, which compiles again for inputs of another kind"


class VerifyError(BrazeError, RuntimeError):
    """Under ``config.verify``: a kernel's code did not do what the kernel says."""

    default_hint = "this is a defect of Braze: please report it with the folder that shows it"


class ResultMismatchError(BrazeError, RuntimeError):
    """An operator returned another tensor than its trace said: other sizes, another type or device. Its fake
    implementation is wrong, or the data is not what the program promises (`torch._check`)."""

    default_hint = "see to the operator's fake implementation, or to what the program says of its data"


class FallbackError(BrazeError):
    """Strict mode: something would have run as eager PyTorch instead of compiled code."""

    default_hint = "leave strict mode (BRAZE_STRICT=0) to run it as eager PyTorch would"


class ParseError(BrazeError, ValueError):
    """A text is not the printed form that it should be."""


class ExpressionError(BrazeError, ValueError):
    """A symbolic size lies outside the integer grammar of sizes and guards."""

    default_hint = "the operator runs as eager PyTorch would run it"


class ArtifactError(BrazeError, ValueError):
    """Stored bytes are not what they should be: damaged, cut short, of another format or version, or with
    contents that break the schema. Nothing of them was executed."""

    default_hint = "a cache drops the file and makes it again; a package has to be made again"


class SignatureError(ArtifactError):
    """Code from elsewhere is not signed, or not by a key that this user trusts."""

    default_hint = "`braze cache trust <key>` trusts a signer whose programs you would run"


class KeyringError(SignatureError):
    """The folder of signing keys cannot be used, or has no such key; so nothing from elsewhere is trusted."""

    default_hint = "`braze cache keys` shows the key ring; BRAZE_KEYRING_DIR=<folder> names another"


class UnserializableError(BrazeError):
    """A compiled graph, or a request, holds something that has no place in what is stored or sent."""

    default_hint = "it is compiled in this process, and again in every other"


class PackageError(BrazeError):
    """A package cannot be made of a program, or cannot be used as asked: weights that were left out are not
    bound yet, say."""


class CacheError(BrazeError):
    """The cache on disk cannot be used. Compilation goes on without it."""

    default_hint = "BRAZE_CACHE_DIR=<folder> names another place, BRAZE_CACHE=0 does without"


class ConfigError(BrazeError, ValueError):
    """An option has no such name, or its value has the wrong type or lies out of range."""


class ExtensionError(BrazeError, ValueError):
    """What somebody registers for an operator of a library, or as a graph pass, does not fit."""

    default_hint = "docs/extending.md says what can be registered, and for what"


class InternalError(BrazeError):
    """A promise that Braze makes to itself was broken."""

    default_hint = "this is a defect of Braze: please report it with the text above"


class BrazeWarning(UserWarning):
    """Something runs, but not as compiled code, or not as well as it could; said once for each place."""
