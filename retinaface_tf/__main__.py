"""`python -m retinaface_tf` is the command `retinaface-tf`."""

import sys

try:
    from retinaface_tf.cli.main import main

    code = main()
except KeyboardInterrupt:  # while Python still imports
    print("retinaface-tf: interrupted", file=sys.stderr)
    code = 130
sys.exit(code)
