@echo off
rem Extract the frames of a video.  Usage: 1-extract.bat [VIDEO [FRAMES]]
setlocal
set "VIDEO=%~1"
if not defined VIDEO set "VIDEO=RHI-20Sec.mov"
set "FRAMES=%~2"
if not defined FRAMES set "FRAMES=Input"
python "%~dp0..\dreamer.py" -e 1 --input "%VIDEO%" --output "%FRAMES%"
exit /b %ERRORLEVEL%
