"""Parity certificates: what a converted file says of its own numbers, and the verb `verify` that checks it again."""

from diptych.certifying.certificates import FILE, KEY, certificate_of, project_certificate
from diptych.certifying.verifying import Checked, Verification, verify

__all__ = ["FILE", "KEY", "Checked", "Verification", "certificate_of", "project_certificate", "verify"]
