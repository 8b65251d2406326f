"""Set the Fast DDS profile for large images, for every process that is started after this.

Include it first in a launch file that starts cameras: their processes need the profile as much as the node does.
A profile that the environment names already stays, and other middlewares do not read the variables.
"""

import os
from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext, LaunchDescription

# From Fast DDS 3 on, which came with Kilted, and before. Version 3 reads the old name with a warning, 2 only that one.
NEW_NAME, OLD_NAME = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")


def generate_launch_description() -> LaunchDescription:
    """The argument, and what it leads to."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "dds_profile",
                default_value="",
                description="Fast DDS profile; default: config/fastdds.xml of the package; none: leave it alone",
            ),
            OpaqueFunction(function=_set_profile),
        ]
    )


def _set_profile(context: LaunchContext) -> list[SetEnvironmentVariable]:
    profile = LaunchConfiguration("dds_profile").perform(context)
    if profile == "none" or (not profile and any(os.environ.get(name) for name in (NEW_NAME, OLD_NAME))):
        return []
    path = Path(profile or Path(__file__).resolve().parents[1] / "config" / "fastdds.xml").expanduser()
    if not path.is_file():
        # Fast DDS says nothing and goes on with its own settings.
        raise ValueError(f"launch argument dds_profile: expected a file, or none; there is no file {path}")
    distribution = os.environ.get("ROS_DISTRO", "")
    names = (OLD_NAME,) if distribution in OLD_DISTRIBUTIONS else (NEW_NAME,) if distribution else (NEW_NAME, OLD_NAME)
    return [SetEnvironmentVariable(name, str(path.resolve())) for name in names]
