"""``python -m taichu.command_line`` is the command ``taichu`` of this very Python."""

import sys

from taichu.command_line import main

sys.exit(main())
