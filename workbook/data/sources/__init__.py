"""Readers, one a format, that all yield the same table of episodes; `read` chooses among them."""

DATA_KINDS = (
    "'sample'; a LIBERO, robomimic or ManiSkill HDF5 file or a folder of them; the folder of a LeRobot data set, v2 or "
    "v3; a .pt file of normalised chunks or of Phase-2 samples; or, fetched without images, libero_spatial, "
    "libero_object, libero_goal, libero_10, libero (all four) or hf://owner/name"
)
