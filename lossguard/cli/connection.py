"""The collector that a command asks, the pages of its dashboard, and the options of the commands that read a source."""

import argparse
import getpass
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from lossguard.cli.errors import CommandError, exit_code_of, sentence_of
from lossguard.cli.terminal import printable
from lossguard.client.client import Client
from lossguard.run.settings import Settings
from lossguard.vocabulary.errors import CollectorError, ConfigurationError, Unreachable
from lossguard.vocabulary.protocol import MAX_PERSON, PERSON_HEADER

if TYPE_CHECKING:
    from lossguard.sources.formats import Layout
    from lossguard.sources.names import NameMap

