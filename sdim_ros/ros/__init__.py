"""The thin ROS 2 shell: messages in, messages out. It does no arithmetic on pixels."""
