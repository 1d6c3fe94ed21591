"""Codecs: chunks of actions to tokens and back, all through the one door of `protocol`."""
