"""The errors a user can cause; each says in one line what is wrong and what would be right."""


class TaichuError(Exception):
    """Base of every error of this package that a user can mend."""


class ConfigError(TaichuError):
    """A recipe, a size or an override holds a wrong key or value."""


class ManifestError(TaichuError):
    """A manifest's row is malformed."""


class ConversationError(TaichuError):
    """A file of conversations, or a row of it, is malformed or does not fit what it is for."""


class TemplateError(TaichuError):
    """A chat template cannot be read, or does not fit a conversation."""


class CheckpointError(TaichuError):
    """A model folder or a training checkpoint is missing, damaged or made for something else."""


class DiskFullError(TaichuError):
    """There is no room on the disk for what was to be saved."""


class GenerationError(TaichuError):
    """What was asked of a model cannot be made by it."""


class ExportError(TaichuError):
    """A model cannot be exported, or an exported folder cannot be used."""


class IndexFolderError(TaichuError):
    """An index is missing, damaged or made with another model, or lacks what was named."""


class TuningError(TaichuError):
    """A tuning method or an adapter does not fit the model, or would change nothing."""
