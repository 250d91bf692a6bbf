# All roles in one process, like `twistd tracker standalone`, for `twistd -ny`.
#
#   TRACKER_DATA=/var/lib/tracker twistd -ny tap/standalone.tac
#
# TRACKER_DATA is the folder for all data (default: ./tracker-data). INSTANCE_ID and
# REDIS_TELEMETRY_STREAM have the same meaning as for the command.

from twisted.application import service

from tracker.tap import Options, makeService

options = Options()
options.parseOptions(["standalone"])

application = service.Application("tracker")
makeService(options).setServiceParent(application)
