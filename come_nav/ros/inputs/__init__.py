"""What nodes look at in their inputs besides the messages: transport, frames, extrinsics, silence."""
