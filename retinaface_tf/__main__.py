"""`python -m retinaface_tf` is the command `retinaface-tf`."""

import sys

from retinaface_tf.cli.main import main

sys.exit(main())
